# `docker buildx bake -f docker/docker-bake.hcl`: what `make images` builds, side by side,
# and for several platforms or to a registry:
#
#   REGISTRY=registry.example.com/team/ TAG=0.1.0 docker buildx bake -f docker/docker-bake.hcl --push

variable "REGISTRY" { default = "" }
variable "TAG" { default = "0.1.0" }
variable "REVISION" { default = "unknown" }
variable "BASE_IMAGE" { default = "python:3.11-slim-bookworm" }
variable "BUILD_IMAGE" { default = "" }
variable "DATA" { default = "" }

group "default" { targets = ["base", "train", "serve", "mlflow"] }

target "image" {
  matrix     = { kind = ["base", "train", "serve", "mlflow"] }
  name       = kind
  context    = "."
  dockerfile = "docker/Dockerfile"
  target     = kind
  tags       = ["${REGISTRY}tokiwa-python-${kind}:${TAG}"]
  args = {
    BASE_IMAGE  = BASE_IMAGE
    BUILD_IMAGE = BUILD_IMAGE != "" ? BUILD_IMAGE : BASE_IMAGE
    DATA        = DATA
    VERSION     = TAG
    REVISION    = REVISION
  }
}
