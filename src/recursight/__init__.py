"""recursight: train, compare, register and retrain recurrent networks that see."""

__version__ = "0.1.0"
