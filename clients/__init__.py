"""What sites are: their tasks (``hospital.py``), their data, and the Flower ClientApp they run (``app.py``)."""
