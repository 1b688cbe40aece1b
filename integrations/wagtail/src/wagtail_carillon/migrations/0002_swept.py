"""How far the sweep over Wagtail's logs has come."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('wagtail_carillon', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Swept',
            fields=[
                ('log', models.CharField(help_text="The log's model: `wagtailcore.pagelogentry`.", max_length=100, primary_key=True, serialize=False)),
                ('entry', models.BigIntegerField(help_text='The newest entry that has been looked at.')),
            ],
        ),
    ]
