"""The survey: demographics and satisfaction, kept apart from labels."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table. On SQLite without a rowid, which would keep the order of arrival."""
    without = " WITHOUT ROWID" if op.get_bind().dialect.name == "sqlite" else ""
    op.execute(
        "CREATE TABLE survey (id TEXT NOT NULL PRIMARY KEY, month TEXT NOT NULL,"
        f" answers TEXT NOT NULL){without}"
    )
