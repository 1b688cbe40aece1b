"""`path("carillon/", include("carillon_notify.django.urls"))`"""

from django.urls import path

from . import views

app_name = "carillon"
urlpatterns = [path("token/", views.token, name="token")]
