"""The small CMS for an ASGI server: `uvicorn tests.asgi:application`."""

from django.core.asgi import get_asgi_application

application = get_asgi_application()
