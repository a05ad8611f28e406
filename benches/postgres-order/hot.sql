select append_any('hot-' || :run::text, :data::bytea);
