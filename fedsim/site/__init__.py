"""The site: how it answers the messages of a server."""
