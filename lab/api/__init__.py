"""The read models as JSON over HTTP: one router a file, each of which only asks, documents and answers."""
