"""The replication of docs/replication.md: its own measurements, its tables, its figures."""
