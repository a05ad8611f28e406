select append('order-' || :run::text || '-' || :client_id::text, 'order', :version, array[gen_random_uuid()], array['Placed'], array[:data::bytea], array[null::bytea]) as version \gset
