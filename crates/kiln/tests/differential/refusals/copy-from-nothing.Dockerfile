FROM scratch
COPY --from= /a /b
