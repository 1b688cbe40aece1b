"""How long an order to the nodes has waited."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('carillon', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='nodeorder',
            name='created',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False, help_text="By the database's clock."),
        ),
    ]
