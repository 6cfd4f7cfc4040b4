FROM scratch
RUN echo \
