-- UTF-8 whatever the cluster's default encoding is: model cards contain non-ASCII characters.
create database mlflow encoding 'UTF8' template template0;
create database prefect encoding 'UTF8' template template0;
