FROM scratch
COPY --from=1 /x /y
FROM scratch
