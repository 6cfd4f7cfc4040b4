FROM scratch
COPY --chmod=rw a /b
