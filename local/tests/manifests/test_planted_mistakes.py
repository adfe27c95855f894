"""A mistake in any manifest is found by a promise that it breaks, not only by the golden files."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pytest
from promises import broken_promises
from tree import OTHER_SETTINGS, Tree

CALLERS = "manifests/mirroring/routes/callers.yaml"
GRPC = "manifests/mirroring/routes/grpc.yaml"
GRPC_SERVICES = "manifests/mirroring/grpc-services/grpc-services.yaml"
FOLLOW = "manifests/mirroring/follow"
FOLLOW_CALLERS = f"{FOLLOW}/callers/callers.yaml"
FOLLOW_LATER = "manifests/options/follow-later/cron-job.yaml"
FOLLOWER = "manifests/mirroring/follower/follower.yaml"
GRPC_LIMITS = "manifests/mirroring/routes/grpc-limits.yaml"
LIMITS = "manifests/mirroring/standard/shadow-limits.yaml"
KNATIVE = "manifests/mirroring/knative"
BASE = "manifests/inference/base/inference-service.yaml"
STANDARD_MODE = "manifests/inference/standard-mode/kustomization.yaml"
KNATIVE_MODE = "manifests/inference/knative-mode/knative.yaml"
PRIMARY = "manifests/inference/primary/primary.yaml"
SHADOW = "manifests/inference/shadow/shadow.yaml"
REPLACEMENTS = "manifests/settings/replacements.yaml"
RETENTION = "manifests/options/retention/cron-job.yaml"
API_KEY = "manifests/options/api-key/callers.yaml"
PASS_PATHS = "manifests/options/pass-paths/callers.yaml"
PASS_PATHS_KUSTOMIZATION = "manifests/options/pass-paths/kustomization.yaml"
API_KEY_GRPC = "manifests/options/api-key/grpc.yaml"
POLICIES = "manifests/options/network-policies/standard/network-policies.yaml"
FOLLOW_POLICIES = "manifests/options/network-policies/follow/network-policies.yaml"
MONITOR = "manifests/options/pod-monitor/pod-monitor.yaml"
VERDICT = "manifests/options/live-verdict"
RULES = "manifests/options/rules/kustomization.yaml"
ALERTS = "manifests/options/alerts/rules.yaml"
SECOND = "manifests/options/second-shadow"
# Where callers.yaml takes the list of paths for one way more.
OF_PRIMARY = "- name: primary\n          uri: *inference"
OF_SHADOW = "- name: shadow\n          uri: *inference"

IN_STANDARD = [
    # the second shadow
    (f"{SECOND}/inference/base/second-shadow.yaml", 'value: "4"', 'value: "3"'),
    (f"{SECOND}/standard/limits.yaml", "connectTimeout: 3s", "connectTimeout: 30s"),
    (f"{SECOND}/grpc/kustomization.yaml", "host: ENTRY-second-shadow", "host: ENTRY-shadow"),
    (REPLACEMENTS, "data.second-shadow}", "data.shadow}"),
    (REPLACEMENTS, "mirrors.1.destination.host", "mirrors.0.destination.host"),
    # hosts
    (CALLERS, "PRIMARY-transformer.PROFILE.svc", "PRIMARY-predictor.PROFILE.svc"),
    (CALLERS, "SHADOW-transformer.PROFILE.svc", "SHADOW-predictor.PROFILE.svc"),
    (CALLERS, "PRIMARY-transformer.PROFILE.svc.cluster.local", "PRIMARY-transformer.PROFILE.svc"),
    (LIMITS, "SHADOW-transformer", "SHADOW-predictor"),
    (CALLERS, "hosts: [DOMAIN]", "hosts: [DOMAIN, other.example.com]"),
    (CALLERS, "name: ENTRY.callers", "name: ENTRY"),
    (GRPC, "host: ENTRY-shadow-grpc", "host: ENTRY-primary-grpc"),
    (GRPC_SERVICES, "component: transformer", "component: predictor"),
    (GRPC_LIMITS, "host: ENTRY-shadow-grpc", "host: ENTRY-primary-grpc"),
    # paths
    (CALLERS, "/serving/PROFILE/WAY", "/serve/PROFILE/WAY"),
    (CALLERS, "PROFILE/WAY/(", "PROFILE/WAY/(.*|"),
    (CALLERS, "v1/rerank|", "v1/score|"),
    (CALLERS, OF_PRIMARY, "- name: primary\n          uri: {prefix: /serving/PROFILE/PRIMARY/v2}"),
    (CALLERS, OF_SHADOW, "- name: shadow\n          uri: {regex: /serving/PROFILE/SHADOW/v1/.*}"),
    (CALLERS, "[^/]+/[^/]+(/.*)$", "[^/]+(/.*)$"),
    (GRPC, "uri: {exact: /inference.GRPCInferenceService/ModelInfer}", "uri: {prefix: /inference}"),
    (GRPC, "headers: {x-serving-path: {exact:", "headers: {x-serving-path: {prefix:"),
    (GRPC, "GRPCInferenceService/Repository", "GRPCInferenceService/Repositories"),
    (CALLERS, "(?i).*websocket.*", "websocket"),
    (BASE, "path: /v1/models/model", "path: /v1/models/other"),
    (BASE, "value: /var/spool/records", "value: /var/spool/record"),
    (BASE, "sslrootcert=/etc/prediction-db/ca.crt", "sslrootcert=/etc/prediction-db/tls.crt"),
    # headers
    (CALLERS, 'set: {x-shadow-pair-id: "%REQ(x-request-id)%"}', "set: {x-shadow-pair-id: same}"),
    (
        CALLERS,
        "response:\n          set: {x-shadow-pair-id",
        "response:\n          set: {x-pair-id",
    ),
    (CALLERS, "authorization, x-api-key, cookie]", "authorization, x-api-key]"),
    (CALLERS, "remove: [x-shadow-pair-id, ", "remove: ["),
    (CALLERS, "remove: [x-shadow-source, ", "remove: ["),
    (CALLERS, "x-shadow-pair-id, x-shadow-source, x-shadow,", "x-shadow-pair-id, x-shadow-source,"),
    (GRPC, 'set: {x-shadow-pair-id: "%REQ(x-request-id)%"}', "set: {x-shadow-pair-id: same}"),
    (GRPC, "authorization, x-api-key, cookie]", "authorization]"),
    (GRPC, "remove: [x-shadow-pair-id, ", "remove: ["),
    (GRPC, "remove: [x-shadow-source, ", "remove: ["),
    # paths of their own
    (PASS_PATHS, "{name: primary, uri", "{name: shadow, uri"),
    (PASS_PATHS, "    headers: {content-length: {regex: CONTENT_LENGTH}}\n", ""),
    (PASS_PATHS, "path: /spec/http/2/match/1", "path: /spec/http/1/match/1"),
    (PASS_PATHS_KUSTOMIZATION, '- "spec.http.[name=shadow].match.1.uri.regex"', ""),
    (PASS_PATHS_KUSTOMIZATION, "(predict|images)(/.*)?", "(predict|images/.*)"),
    (PASS_PATHS_KUSTOMIZATION, "- paths=/predict,/images", "- paths=/predict,/pictures"),
    # guards
    (REPLACEMENTS, "match.*.headers.content-length.regex", "match.*.headers.content-length.prefix"),
    (CALLERS, "timeout: 60s", "timeout: 0m"),
    (GRPC, "retries: {attempts: 0}", "retries: {attempts: 2}"),
    (CALLERS, "retries: {attempts: 0}", "retries: {attempts: 2}"),
    (LIMITS, "http1MaxPendingRequests: 512", "http1MaxPendingRequests: 1"),
    (LIMITS, "connectTimeout: 3s", "connectTimeout: 30s"),
    (LIMITS, "http2MaxRequests: 576", "http2MaxRequests: 576\n        maxRetries: 0"),
    (REPLACEMENTS, "connectionPool.http.http2MaxRequests", "connectionPool.http.http3MaxRequests"),
    # percentage
    (REPLACEMENTS, "mirrors.*.percentage.value", "mirrors.*.percentage.value.extra"),
    (CALLERS, "percentage: {value: 0.5}", "percentage: {valeu: 0.5}"),
    # ports
    (CALLERS, "number: 80", "number: 8080"),
    (GRPC, "number: 8081", "number: 80"),
    (GRPC_SERVICES, "targetPort: 8081", "targetPort: 8080"),
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
    (BASE, "    maxReplicas: 1\n", ""),
    (BASE, "enableServiceLinks: false", "enableServiceLinks: true"),
    (BASE, "name: POSTGRES_PORT_NUMBER", "name: POSTGRES_PORT"),
    (STANDARD_MODE, "transformer/scaleTarget, value", "transformer/scaleGoal, value"),
    (BASE, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (BASE, "automountServiceAccountToken: false", "automountServiceAccountToken: true"),
    (BASE, "terminationGracePeriodSeconds: 75", "terminationGracePeriodSeconds: 30"),
    (BASE, "sizeLimit: 1280Mi", "sizeLimit: 1Gi"),
    (BASE, "optional: true", "optional: false"),
    (BASE, "requests: {cpu: 100m, memory: 256Mi}", "requests: {cpu: 100m}"),
    # settings
    (
        REPLACEMENTS,
        'match.[name=entry].uri.regex"]\n      options: {delimiter: /, index: 3}',
        'match.[name=entry].uri.regex"]\n      options: {delimiter: /, index: 4}',
    ),
    (REPLACEMENTS, "[name=mirrored].match", "[name=not-copied].match"),
    (REPLACEMENTS, "fieldPath: data.shadow", "fieldPath: data.primary"),
    (REPLACEMENTS, "select: {namespace: PROFILE}", "select: {namespace: default}"),
    # options
    (RETENTION, "pguser-maintenance, key: password", "pguser-report, key: password"),
    (RETENTION, "args: [maintain", "args: [maintains"),
    (RETENTION, "backoffLimit", "backofLimit"),
    (API_KEY, '"/serving/PROFILE/SHADOW/.*"', '"/serving/PROFILE/SHADOW"'),
    (API_KEY, "withoutHeaders: {x-api-key", "headers: {x-api-key"),
    (API_KEY, "exact: KEY", "prefix: KEY"),
    (API_KEY, 'uri: {regex: "/serving/PROFILE/PRIMARY/.*"}', "uri: {prefix: /serving/}"),
    (API_KEY_GRPC, "exact: /serving/PROFILE/SHADOW}", "exact: /serving/PROFILE/SHADOW/}"),
    (
        POLICIES,
        "podSelector:\n            matchLabels:\n",
        "namespaceSelector:\n            matchLabels:\n",
    ),
    (POLICIES, "port: 8080", "port: 80"),
    (POLICIES, "component: follow-later", "component: follow-now"),
    (POLICIES, "follow-later, shadow-deployment/entry: ENTRY", "follow-later"),
    (f"{VERDICT}/service.yaml", "    shadow-deployment/entry: ENTRY\n", ""),
    (f"{VERDICT}/network-policy.yaml", "      shadow-deployment/entry: ENTRY\n", ""),
    (MONITOR, "      shadow-deployment/entry: ENTRY\n", ""),
    (MONITOR, "targetPort: 8080", "targetPort: 8081"),
    (f"{VERDICT}/alert.yaml", "for: 15m", "for: soon"),
    (f"{VERDICT}/alert.yaml", "#shadowverdictmissing", "#shadowmetricsmissing"),
    (MONITOR, "[follower, live-verdict]", "[follower, live-verdicts]"),
    (f"{VERDICT}/deployment.yaml", "--address=0.0.0.0", "--address=127.0.0.1"),
    (f"{VERDICT}/deployment.yaml", "args: [serve", "args: [compare"),
    (f"{VERDICT}/deployment.yaml", "name: MIRROR_PERCENTAGE", "name: MIRRORED_PERCENTAGE"),
    (f"{VERDICT}/deployment.yaml", "path: /live", "path: /gate"),
    (f"{VERDICT}/deployment.yaml", 'limits: {cpu: "1", memory: 512Mi}', 'limits: {cpu: "1"}'),
    (f"{VERDICT}/deployment.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (f"{VERDICT}/deployment.yaml", "pguser-report, key: host", "pguser-maintenance, key: host"),
    (f"{VERDICT}/service.yaml", "type: ClusterIP", "type: NodePort"),
    (
        f"{VERDICT}/service.yaml",
        "component: live-verdict\n    shadow",
        "component: verdict\n    shadow",
    ),
    (f"{VERDICT}/network-policy.yaml", "- podSelector: {}", "- namespaceSelector: {}"),
    (f"{VERDICT}/network-policy.yaml", "gate: allowed", "gates: allowed"),
    (
        REPLACEMENTS,
        "[name=serve].env.[name=MIRROR_PERCENTAGE]",
        "[name=serve].env.[name=POSTGRES_URI]",
    ),
    (RULES, "name: rules, mountPath: /etc/shadow-report", "name: rules, mountPath: /etc/rules"),
    (RULES, "files: [rules.yaml]", "files: [rule.yaml=rules.yaml]"),
    (
        ALERTS,
        'absent(prediction_db_records_total{namespace="PROFILE", ',
        "absent(prediction_db_records_total{",
    ),
    (ALERTS, "shadow_gate_status{", "shadow_gate_estimate{"),
    (ALERTS, "severity: critical", "severity: [critical]"),
    (ALERTS, "runbook_url: RUNBOOK#shadowrejected", "runbook_url: RUNBOOK"),
]
IN_FOLLOW = [
    (FOLLOW_CALLERS, "- {name: MODEL-transformer", "- {name: MODEL-predictor"),
    (FOLLOW_CALLERS, "WAY/v1/models}", "WAY}"),
    (FOLLOW_CALLERS, "WAY/v1/rerank}", "WAY/v1/score}"),
    (FOLLOW_CALLERS, "replacePrefixMatch: /v1/models", "replacePrefixMatch: /v2/models"),
    (FOLLOW_CALLERS, "replaceFullPath: /v2", "replaceFullPath: /"),
    (FOLLOW_CALLERS, "replaceFullPath: /v1/responses", "replaceFullPath: /v1/response"),
    (FOLLOW_CALLERS, "type: Exact", "type: PathPrefix"),
    (FOLLOW_CALLERS, "x-shadow-pair-id, x-shadow-source, ", ""),
    (FOLLOW_CALLERS, "{request: 60s}", "{request: 1m}"),
    (FOLLOW_CALLERS, "hostnames: [DOMAIN]", "hostnames: [DOMAIN, other.example.com]"),
    (f"{FOLLOW}/entry/kustomization.yaml", "nameSuffix: .", "nameSuffix: -"),
    (f"{FOLLOW}/shadow/kustomization.yaml", "way: shadow", "way: primary"),
    (REPLACEMENTS, "way in (entry, primary)", "way in (entry, shadow)"),
    (f"{FOLLOW}/grpc.yaml", "method: ModelInfer}", "method: RepositoryModelUnload}"),
    (f"{FOLLOW}/grpc.yaml", "ENTRY-primary-grpc", "ENTRY-shadow-grpc"),
    (f"{FOLLOW}/grpc.yaml", "x-request-id, authorization", "authorization"),
    (FOLLOWER, "$(SHADOW_NAME)-transformer", "$(PRIMARY_NAME)-transformer"),
    (FOLLOWER, "-shadow-grpc.", "-primary-grpc."),
    (FOLLOWER, "--shadow=$(SHADOW_NAME)", "--shadow=$(PRIMARY_NAME)"),
    (FOLLOWER, "replicas: 1", "replicas: 2"),
    (FOLLOWER, "type: Recreate", "type: RollingUpdate"),
    (
        FOLLOWER,
        "pguser-report, key: password",
        "pguser-transformer, key: password",
    ),
    (FOLLOWER, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    (FOLLOWER, "path: /ready", "path: /"),
    (FOLLOWER, "--port=8080", "--port=9090"),
    (
        f"{SECOND}/follow/follower/kustomization.yaml",
        "value: --to-grpc=$(ENTRY_NAME)-second-shadow-grpc",
        "value: --to-grpc=$(ENTRY_NAME)-shadow-grpc",
    ),
    (
        f"{SECOND}/follow/follower/kustomization.yaml",
        "metadata/labels/app.kubernetes.io~1component, value: second-follower",
        "metadata/labels/app.kubernetes.io~1component, value: follower",
    ),
    (
        f"{FOLLOW}/kustomization.yaml",
        "component=live-verdict}",
        "component=live}",
    ),
    (FOLLOW_POLICIES, "values: [follower, follow-later]", "values: [follower]"),
    (FOLLOW_LATER, "suspend: false", "suspend: true"),
    (FOLLOW_LATER, "startingDeadlineSeconds: 3600", "startingDeadlineSeconds: 86400"),
    (FOLLOW_LATER, "activeDeadlineSeconds: 84600", "activeDeadlineSeconds: 90000"),
    (FOLLOW_POLICIES, "shadow-deployment/gateway: any-pod", "shadow-deployment/gateways: any-pod"),
    (FOLLOW_POLICIES, "component: follower\n      shadow", "component: followers\n      shadow"),
    (FOLLOWER, "      shadow-deployment/entry: ENTRY\n  template", "  template"),
    (FOLLOW_POLICIES, "      shadow-deployment/entry: ENTRY\n", ""),
    (REPLACEMENTS, "[name=FOLLOW_RATE]", "[name=FOLLOW_CONCURRENCY]"),
    (REPLACEMENTS, "spec.rules.*.backendRefs", "spec.rules.0.backendRefs"),
    (FOLLOW_CALLERS, "- matches:", "- name: entry\n      matches:"),
    (f"{FOLLOW}/grpc.yaml", "- matches:", "- name: entry\n      matches:"),
    (REPLACEMENTS, "data.gateway, options: {delimiter: /, index: 0}", "data.gateway-namespace"),
]

IN_KNATIVE = [
    (f"{KNATIVE}/by-host/callers.yaml", "path: /spec/http/2/rewrite", "path: /spec/http/1/rewrite"),
    (
        f"{KNATIVE}/by-host/callers.yaml",
        "value: knative-local-gateway.istio-system",
        "value: knative.istio-system",
    ),
    (f"{KNATIVE}/by-host/callers.yaml", "host: PROFILE-ENTRY-mirror", "host: PROFILE-ENTRY-copies"),
    (REPLACEMENTS, "[name=primary].rewrite.authority", "[name=shadow].rewrite.authority"),
    (f"{KNATIVE}/mirror.yaml", "    - PRIMARY-transformer.PROFILE.svc.cluster.local-shadow\n", ""),
    (f"{KNATIVE}/mirror.yaml", "authority: SHADOW-transformer", "authority: SHADOW-predictor"),
    (f"{KNATIVE}/mirror.yaml", "gateways: [ENTRY-mirror]", "gateways: [ENTRY-copies]"),
    (f"{KNATIVE}/mirror.yaml", "timeout: 60s", "timeout: 60m"),
    (REPLACEMENTS, "[spec.servers.0.port.number]", "[spec.servers.0.port.targetPort]"),
    (REPLACEMENTS, "[spec.ports.0.port, spec.ports.0.targetPort]", "[spec.ports.0.targetPort]"),
    (f"{KNATIVE}/mirror-service.yaml", "istio: ingressgateway", "ingress: gateway"),
    (f"{KNATIVE}/shadow-limits.yaml", "host: PROFILE-ENTRY-mirror", "host: PROFILE-ENTRY-shadow"),
    (
        f"{SECOND}/knative/mirror.yaml",
        "authority: SECOND-transformer",
        "authority: SECOND-predictor",
    ),
    (f"{SECOND}/knative/kustomization.yaml", "ENTRY-second-mirror.", "ENTRY-mirror."),
    (KNATIVE_MODE, "deploymentMode: Knative", "deploymentMode: Standard"),
    (KNATIVE_MODE, "transformer/timeout, value: 60", "transformer/timout, value: 60"),
    (KNATIVE_MODE, "predictor/scaleMetric, value", "predictor/scaleMetrik, value"),
]
MISTAKES = [("standard", *m) for m in IN_STANDARD] + [("knative", *m) for m in IN_KNATIVE]
MISTAKES += [("follow", *m) for m in IN_FOLLOW]


@pytest.fixture(scope="module")
def right_tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Tree]:
    """The tree of a topology with every option, with the default or with other settings.

    The tests share it, and leave it as it was.
    """

    @cache
    def made(topology: str, other_settings: bool) -> Tree:
        tree = Tree(tmp_path_factory.mktemp("trees") / topology)
        tree.choose_topology(topology)
        tree.switch_on_options(topology)
        if other_settings:
            tree.choose_settings(OTHER_SETTINGS)
        return tree

    return made


@pytest.mark.parametrize(("topology", "file", "right", "wrong"), MISTAKES)
def test_mistake_is_found(
    right_tree: Callable[[str, bool], Tree], topology: str, file: str, right: str, wrong: str
) -> None:
    """The rendering fails, or the outcome breaks a promise."""
    # With the defaults, what is written nowhere may be right by chance.
    other_settings = file in (REPLACEMENTS, f"{FOLLOW}/kustomization.yaml")
    tree = right_tree(topology, other_settings)
    with tree.replaced(file, right, wrong):
        try:
            broken = broken_promises(tree)
        except (AssertionError, KeyError, ValueError, re.error) as error:
            broken = [f"{type(error).__name__}: {error}"]
    assert broken
