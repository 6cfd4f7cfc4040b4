ARG A=x
FROM scratch AS x
FROM scratch
COPY --from=$A /a /b
