-- The tables and the append function of all contenders. A line that ends in `--@ 2 7` is only for
-- contenders 2 and 7; other lines are for all. @KEY@ is the store's key for advisory locks.

create sequence positions cache 1;                                              --@ 1 2 3 4 6 7 8 9

create table streams (
	id bigint generated always as identity primary key,
	name text collate "C" not null unique,
	category text collate "C",
	state smallint not null default 0,
	removed_to bigint,
	deleted_at bigint
);

create table events (
	position bigint primary key,
	stream bigint not null,
	version bigint not null,
	recorded_at timestamptz not null,
	id uuid not null,
	flags smallint not null,
	category text collate "C",
	type text collate "C" not null,
	data bytea not null,
	metadata bytea,
	xid xid8 not null default pg_current_xact_id(),                             --@ 6
	unique (stream, version)
);
create index on events (category, position) where category is not null;
create index on events (type, position);
create index on events (xid, position);                                         --@ 6

create table counter (position bigint not null);                                --@ 5
insert into counter values (0);                                                 --@ 5

create table pending (                                                          --@ 7
	seq bigint generated always as identity primary key,                        --@ 7
	stream bigint not null,                                                     --@ 7
	version bigint not null,                                                    --@ 7
	recorded_at timestamptz not null,                                           --@ 7
	id uuid not null,                                                           --@ 7
	flags smallint not null,                                                    --@ 7
	category text collate "C",                                                  --@ 7
	type text collate "C" not null,                                             --@ 7
	data bytea not null,                                                        --@ 7
	metadata bytea,                                                             --@ 7
	unique (stream, version)                                                    --@ 7
);                                                                              --@ 7

-- Returns the stream's new last version. `expected` is null for any version, and -1 for no stream. A
-- conflict is the error 40001.
create function append(
	p_name text, p_category text, p_expected bigint,
	p_ids uuid[], p_types text[], p_data bytea[], p_metadata bytea[]
) returns bigint language plpgsql as $$
declare
	s bigint;
	s_state smallint;
	last bigint;
	base bigint;                                                                --@ 5
begin
	perform pg_advisory_xact_lock(@KEY@, hashtext(p_name));                     --@ 2 7
	perform pg_advisory_xact_lock_shared(@KEY@, 0);                             --@ 3
	perform pg_advisory_xact_lock(@KEY@, 0);                                    --@ 4

	select t.id, t.state into s, s_state from streams t where t.name = p_name
		for no key update                                                       --@ 9
	;
	if s is null then
		insert into streams (name, category) values (p_name, p_category)
			on conflict (name) do nothing returning id into s;
		if s is null then
			select t.id, t.state into s, s_state from streams t where t.name = p_name
				for no key update                                               --@ 9
			;
		end if;
	end if;

	select e.version into last from events e where e.stream = s order by e.version desc limit 1; --@ 1 2 3 4 5 6 8 9
	select greatest(                                                            --@ 7
		(select e.version from events e where e.stream = s order by e.version desc limit 1),     --@ 7
		(select e.version from pending e where e.stream = s order by e.version desc limit 1)     --@ 7
	) into last;                                                                --@ 7
	last := coalesce(last, -1);
	if s_state <> 0 or p_expected <> last then
		raise exception 'conflict: last version is %', last using errcode = '40001';
	end if;

	update counter set position = position + cardinality(p_ids)                 --@ 5
		returning position - cardinality(p_ids) into base;                      --@ 5
	insert into events (position, stream, version, recorded_at, id, flags, category, type, data, metadata) --@ 1 2 3 4 5 6 8 9
	insert into pending (stream, version, recorded_at, id, flags, category, type, data, metadata) --@ 7
	select
		nextval('positions'),                                                   --@ 1 2 3 4 6 8 9
		base + u.ordinal,                                                       --@ 5
		s, last + u.ordinal, now(), u.id, 0, p_category, u.type, u.data, u.metadata
	from unnest(p_ids, p_types, p_data, p_metadata) with ordinality u (id, type, data, metadata, ordinal);
	return last + cardinality(p_ids);
end $$;

-- For the safety runs: reports a unique violation as a conflict, after which pgbench goes on.
create function append_any(p_name text, p_data bytea) returns bigint language plpgsql as $$
begin
	return append(p_name, 'order', null, array[gen_random_uuid()], array['Placed'], array[p_data], array[null::bytea]);
exception when unique_violation then
	raise exception 'conflict' using errcode = '40001';
end $$;

-- Moves the visible events to their final positions, unless another session is doing that.
create function move() returns bigint language plpgsql as $$                    --@ 7
declare                                                                         --@ 7
	moved bigint;                                                               --@ 7
begin                                                                           --@ 7
	if not pg_try_advisory_xact_lock(@KEY@ + 1000, 0) then return 0; end if;    --@ 7
	with gone as (                                                              --@ 7
		delete from pending where seq in (select p.seq from pending p order by p.seq limit 1000) returning *  --@ 7
	)                                                                           --@ 7
	insert into events (position, stream, version, recorded_at, id, flags, category, type, data, metadata)    --@ 7
	select nextval('positions'), g.stream, g.version, g.recorded_at, g.id, g.flags, g.category, g.type, g.data, g.metadata --@ 7
	from (select * from gone order by seq) g;                                   --@ 7
	get diagnostics moved = row_count;                                          --@ 7
	return moved;                                                               --@ 7
end $$;                                                                         --@ 7

create table notes (note text);

do $$
begin
	perform append('fill-' || s, 'fill', null, array_fill(gen_random_uuid(), array[10]), array_fill('Filled'::text, array[10]),
		array_fill(convert_to(repeat('x', 200), 'UTF8'), array[10]), array_fill(null::bytea, array[10]))
	from generate_series(1, 200) s, generate_series(1, 10);
end $$;
do $$ begin while move() > 0 loop end loop; end $$;                             --@ 7
vacuum analyze;
