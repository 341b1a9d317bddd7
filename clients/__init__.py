"""Sites: their tasks (such as ``hospital.py``), their data, and the Flower ClientApp (``app.py``)."""
