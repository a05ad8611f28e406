\set stream case when :client_id < 8 then :client_id else random(100, 103) end
\set early random(1, 4)
\set before random(0, 3000)
\set pause random(0, 6000)
\set fate random(1, 10)
begin;
\if :early = 1
insert into notes values ('written before the append');
\sleep :before us
\endif
select append_any('order-' || :run::text || '-' || :stream::text, :data::bytea);
\sleep :pause us
\if :fate = 1
rollback;
\else
commit;
\endif
