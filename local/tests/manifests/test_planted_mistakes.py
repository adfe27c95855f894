"""A mistake in any manifest is found by a promise that it breaks, not only by the golden files."""

from __future__ import annotations

from pathlib import Path

import pytest
from promises import broken_promises
from tree import Tree

ENTRY = "manifests/mirroring/standard/entry.yaml"
DIRECT = "manifests/mirroring/standard/direct.yaml"
LIMITS = "manifests/mirroring/standard/shadow-limits.yaml"
KNATIVE = "manifests/mirroring/knative"
BASE = "manifests/inference/base/inference-service.yaml"
PRIMARY = "manifests/inference/primary/primary.yaml"
SHADOW = "manifests/inference/shadow/shadow.yaml"
REPLACEMENTS = "manifests/settings/replacements.yaml"
RETENTION = "manifests/options/retention/cron-job.yaml"
API_KEY = "manifests/options/api-key/authorization-policy.yaml"
POLICIES = "manifests/options/network-policies/standard/network-policies.yaml"
MONITOR = "manifests/options/pod-monitor/pod-monitor.yaml"

IN_STANDARD = [
    # hosts
    (ENTRY, "PRIMARY-transformer.PROFILE.svc", "PRIMARY-predictor.PROFILE.svc"),
    (ENTRY, "SHADOW-transformer.PROFILE.svc", "SHADOW-predictor.PROFILE.svc"),
    (
        ENTRY,
        "svc.cluster.local\n            port: {number: 80}\n      mirrors",
        "svc\n      mirrors",
    ),
    (DIRECT, "SHADOW-transformer.PROFILE.svc", "SHADOW-transformer.default.PROFILE.svc"),
    (LIMITS, "SHADOW-transformer", "SHADOW-predictor"),
    (ENTRY, "hosts: [DOMAIN]", "hosts: [DOMAIN, other.example.com]"),
    # paths
    (ENTRY, "/serving/PROFILE/ENTRY/", "/serve/PROFILE/ENTRY/"),
    (ENTRY, "/serving/PROFILE/ENTRY/", "/serving/PROFILE/ENTRY"),
    (DIRECT, "rewrite: {uri: /}", "rewrite: {uri: /v1}"),
    (BASE, "path: /v1/models/model", "path: /v1/models/other"),
    (BASE, "value: /var/spool/records", "value: /var/spool/record"),
    (BASE, "sslrootcert=/etc/prediction-db/ca.crt", "sslrootcert=/etc/prediction-db/tls.crt"),
    # headers
    (ENTRY, 'set: {x-shadow-pair-id: "%REQ(x-request-id)%"}', "set: {x-shadow-pair-id: same}"),
    (ENTRY, "response:\n          set: {x-shadow-pair-id", "response:\n          set: {x-pair-id"),
    (ENTRY, "remove: [authorization, x-api-key, cookie]", "remove: [authorization, x-api-key]"),
    (DIRECT, "remove: [x-shadow-pair-id, ", "remove: ["),
    # guards
    (ENTRY, "[0-9]{1,6}", "[0-9]{1,7}"),
    (ENTRY, "timeout: 60s", "timeout: 0s"),
    (ENTRY, "retries: {attempts: 0}", "retries: {attempts: 2}"),
    (LIMITS, "http1MaxPendingRequests: 512", "http1MaxPendingRequests: 1"),
    (LIMITS, "connectTimeout: 3s", "connectTimeout: 30s"),
    # percentage
    (REPLACEMENTS, "mirrors.*.percentage.value", "mirrors.*.percentage.value.extra"),
    (ENTRY, "percentage: {value: 100.0}", "percentage: {valeu: 100.0}"),
    # ports
    (ENTRY, "number: 80", "number: 8080"),
    (BASE, "port: 8080", "port: 8081"),
    (BASE, "containerPort: 8080", "containerPort: 8000"),
    # environment
    (BASE, "name: SPOOL_DIR", "name: SPOOL_FOLDER"),
    (BASE, "name: POSTGRES_URI", "name: POSTGRES_URL"),
    (BASE, "name: POSTGRES_HOST", "name: POSTGRES_HOSTNAME"),
    (PRIMARY, "value: primary}", "value: shadow}"),
    (SHADOW, 'value: "3"', 'value: "2"'),
    (SHADOW, "name: FACTOR", "name: FAKTOR"),
    (BASE, "key: password", "key: verifier"),
    (BASE, "sslmode=verify-full", "sslmode=require"),
    (BASE, "pguser-transformer, key: host", "pguser-report, key: host"),
    ("postgres-crd.yml", "- name: transformer", "- name: transformers"),
    (BASE, "inferenceservice']", "service']"),
    # pods
    (BASE, "[--model_name, model]", "[--model_name, multiplier]"),
    (BASE, "cluster-local", "exposed"),
    (BASE, "minReplicas: 1", "minReplicas: 0"),
    (BASE, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (BASE, "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    (BASE, "terminationGracePeriodSeconds: 75", "terminationGracePeriodSeconds: 30"),
    (BASE, "sizeLimit: 1280Mi", "sizeLimit: 1Gi"),
    (BASE, "optional: true", "optional: false"),
    (BASE, "requests: {cpu: 100m, memory: 256Mi}", "requests: {cpu: 100m}"),
    # settings
    (REPLACEMENTS, "index: 3", "index: 4"),
    (REPLACEMENTS, "[name=mirrored].match", "[name=not-copied].match"),
    (REPLACEMENTS, "fieldPath: data.shadow", "fieldPath: data.primary"),
    (REPLACEMENTS, "select: {namespace: PROFILE}", "select: {namespace: default}"),
    # options
    (RETENTION, "pguser-maintenance, key: password", "pguser-report, key: password"),
    (RETENTION, "args: [maintain", "args: [maintains"),
    (RETENTION, "backoffLimit", "backofLimit"),
    (API_KEY, "action: DENY", "action: ALLOW"),
    (API_KEY, ", /serving/PROFILE/SHADOW/*", ", /serving/PROFILE/SHADOW"),
    (API_KEY, "x-api-key]", "api-key]"),
    (
        POLICIES,
        "podSelector:\n            matchLabels:\n",
        "namespaceSelector:\n            matchLabels:\n",
    ),
    (POLICIES, "port: 8080", "port: 80"),
    (MONITOR, "targetPort: 8080", "targetPort: 8081"),
]
IN_KNATIVE = [
    (f"{KNATIVE}/callers.yaml", "authority: PRIMARY-transformer", "authority: PRIMARY-predictor"),
    (
        f"{KNATIVE}/callers.yaml",
        "host: knative-local-gateway.istio-system",
        "host: knative.istio-system",
    ),
    (f"{KNATIVE}/callers.yaml", "host: PROFILE-ENTRY-mirror", "host: PROFILE-ENTRY-copies"),
    (f"{KNATIVE}/mirror.yaml", "    - PRIMARY-transformer.PROFILE.svc.cluster.local-shadow\n", ""),
    (f"{KNATIVE}/mirror.yaml", "authority: SHADOW-transformer", "authority: SHADOW-predictor"),
    (f"{KNATIVE}/mirror.yaml", "gateways: [ENTRY-mirror]", "gateways: [ENTRY-copies]"),
    (f"{KNATIVE}/mirror-gateway.yaml", "number: 8089", "number: 8088"),
    (f"{KNATIVE}/mirror-service.yaml", "targetPort: 8089", "targetPort: 80"),
    (f"{KNATIVE}/mirror-service.yaml", "istio: ingressgateway", "ingress: gateway"),
    (f"{KNATIVE}/shadow-limits.yaml", "host: PROFILE-ENTRY-mirror", "host: PROFILE-ENTRY-shadow"),
    (
        "manifests/inference/knative-mode/knative.yaml",
        "deploymentMode: Knative",
        "deploymentMode: Standard",
    ),
    ("manifests/inference/knative-mode/knative.yaml", "timeout, value: 75", "timeout, value: 7"),
]
MISTAKES = [("standard", *m) for m in IN_STANDARD] + [("knative", *m) for m in IN_KNATIVE]


@pytest.mark.parametrize(("topology", "file", "right", "wrong"), MISTAKES)
def test_mistake_is_found(tmp_path: Path, topology: str, file: str, right: str, wrong: str) -> None:
    """The rendering fails, or the outcome breaks a promise."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    tree.replace(file, right, wrong)
    try:
        broken = broken_promises(tree)
    except (AssertionError, KeyError, ValueError) as error:
        broken = [f"{type(error).__name__}: {error}"]
    assert broken
