# An image of the program for a CPU. It runs the demo unless told otherwise:
#
#   docker build --tag attn-unet-jax .
#   docker run --rm attn-unet-jax
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" attn-unet-jax \
#     predict --workdir=runs/a --input=SCAN.nii.gz --output=MASK.nii.gz
#
# For a GPU, build with an extra and start with the container toolkit of the GPU's maker:
#
#   docker build --build-arg EXTRAS='[cuda]' --tag attn-unet-jax:cuda .
#   docker run --rm --gpus all attn-unet-jax:cuda
FROM python:3.13-slim

ARG EXTRAS=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

# The dependencies first: this layer stays as long as they do.
COPY requirements.lock /tmp/requirements.lock
RUN pip install --require-hashes --requirement /tmp/requirements.lock

COPY . /src
RUN pip install "/src${EXTRAS}" && rm -rf /src /tmp/requirements.lock

# A home that any user may write to, for what JAX compiles.
RUN useradd --create-home --uid 1000 user && mkdir /work && chown user /work \
    && chmod 777 /home/user
ENV HOME=/home/user
USER user
WORKDIR /work
VOLUME /work

ENTRYPOINT ["attn-unet-jax"]
CMD ["demo"]
