"""The admin of the test site."""

from django.urls import include, path
from wagtail.admin import urls as wagtailadmin_urls

urlpatterns = [path("cms/admin/", include(wagtailadmin_urls))]
