"""Numbers that the sweep has passed, and nobody was told of."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('wagtail_carillon', '0002_swept'),
    ]

    operations = [
        migrations.AddField(
            model_name='swept',
            name='gaps',
            field=models.JSONField(default=dict, help_text='Numbers before that which nobody was told of, and since when (s): a transaction may be open.'),
        ),
    ]
