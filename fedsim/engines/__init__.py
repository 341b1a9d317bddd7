"""Engines: what executes the clients' messages.

Each file has ``execute(client_app, cohort_size)``, which returns what executes a round's messages, and
``train_all(works, cohort_size)``, which trains sites without messages, as the local-only arm does.
"""
