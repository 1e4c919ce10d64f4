-- UTF-8 whatever the cluster's own encoding is: model cards are full of it.
create database mlflow encoding 'UTF8' template template0;
create database prefect encoding 'UTF8' template template0;
