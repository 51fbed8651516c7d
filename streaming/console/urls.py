"""Paths of the live pages, below the admin and behind its door. Room: streaming."""

from django.contrib import admin
from django.urls import path

from streaming.console import views

app_name = "live"
_behind_the_door = admin.site.admin_view

urlpatterns = [
    path("", _behind_the_door(views.live), name="list"),
    path("kick/<str:user_id>/", _behind_the_door(views.kick), name="kick_user"),
    path("kick/<str:user_id>/<str:session_id>/", _behind_the_door(views.kick), name="kick"),
    path("follow/<str:user_id>/", _behind_the_door(views.follow), name="follow"),
    path("follow/<str:user_id>/events/", _behind_the_door(views.follow_events), name="follow_events"),
]
