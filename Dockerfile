# docker build -t rcnn .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/mnt" rcnn run
FROM python:3.13-slim
# The CPU build of torch: it is much smaller than the CUDA build, which pip would take.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY . /source
RUN pip install --no-cache-dir /source && rm -r /source
# For any user: numba and matplotlib keep files in the home folder.
ENV HOME=/tmp
WORKDIR /mnt
ENTRYPOINT ["rcnn"]
CMD ["--help"]
