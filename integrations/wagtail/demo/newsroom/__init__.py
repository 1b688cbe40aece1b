"""A small newsroom on Wagtail with Carillon: the CMS of docker-compose.yml."""
