"""Models of scikit-learn beside the arms: what somebody would train who has the rows in one place, or one site's."""
