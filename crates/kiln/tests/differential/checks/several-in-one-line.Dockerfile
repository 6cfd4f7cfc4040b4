FROM scratch as Up
ENV a b
ENV SECRET $nope
