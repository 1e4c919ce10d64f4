#!/bin/sh
# Worker of the compose file: applies the deployments of the mounted clone, then polls the work pool.
set -eu
prefect work-pool inspect recursight >/dev/null 2>&1 || prefect work-pool create recursight --type process
prefect --no-prompt deploy --all
exec prefect worker start --pool recursight --type process --install-policy never
