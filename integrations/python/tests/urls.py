"""A view that changes something and tells it, and the token view."""

from carillon_notify.django import emit
from carillon_notify.django.drainer import _current
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from tests.shop.models import Item


def save(request: HttpRequest) -> JsonResponse:
    with transaction.atomic():
        item = Item.objects.create(name=request.GET["name"])
        emit(f"content:{request.GET.get('key', item.pk)}", "content.saved", {"item": item.pk})
    return JsonResponse({"item": item.pk})


def start(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"drainer": _current is not None})


urlpatterns = [path("save", save), path("start", start), path("carillon/", include("carillon_notify.django.urls"))]
