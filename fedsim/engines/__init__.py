"""Engines: what executes the clients' messages.

Each file has ``execute(client_app, scenario)``, which returns what executes a round's messages, and
``train_all(works, scenario)``, which trains sites without messages, as the local-only arm does.
"""
