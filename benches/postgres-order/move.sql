select move() as moved \gset
\if :moved = 0
\sleep 1 ms
\endif
