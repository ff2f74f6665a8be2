#!/usr/bin/env bash
# Run once by the database image, in an empty cluster: make the roles of Standpipe and its login.
#
# The service is no superuser and may not make roles; that is why they exist before its first
# upgrade. docs/how-to/own-postgresql.md does the same by hand.
set -euo pipefail

psql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --set=ON_ERROR_STOP=1 \
  --set=password="$SERVICE_PASSWORD" <<'SQL'
create role sync_owner nologin;
create role sync_ingester nologin;
create role sync_reader nologin;
create role sync_replicator nologin;
create role standpipe login password :'password';
grant sync_owner, sync_ingester, sync_reader, sync_replicator to standpipe;
SQL
