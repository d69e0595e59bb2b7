import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    """What a service wants of a blocked head, and since when a head is known to be one."""

    dependencies = [
        ("deliveries", "0014_kept_media"),
    ]

    operations = [
        migrations.AddField(
            model_name="pending",
            name="blocking_at",
            field=models.DateTimeField(
                help_text="Since when it is known to be a blocked head that others wait for.", null=True
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="order_then",
            field=models.CharField(
                choices=[
                    ("skip", "it steps aside, and the next goes out before it"),
                    ("fail_rest", "what waits behind it fails"),
                ],
                db_default="skip",
                default="skip",
                max_length=16,
                verbose_name="and then",
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="order_wait_seconds",
            field=models.IntegerField(
                blank=True,
                help_text=(
                    "How long a message waits for one before it with its ordering key that cannot go."
                    " Empty: until that ends."
                ),
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(2_592_000),
                ],
                verbose_name="seconds to wait for a blocked head",
            ),
        ),
    ]
