"""Engines: what executes the clients' messages. Each file has ``engine(client_app)``, which makes one."""
