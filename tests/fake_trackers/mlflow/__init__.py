"""The calls of MLflow that we use, with the signatures of mlflow-skinny 3.17. It keeps whatever it is sent."""
