"""HTTP: middleware, the API, clients that leave."""
