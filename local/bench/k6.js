import http from "k6/http";

const body = open(__ENV.BODY, "b");
const load = { duration: `${__ENV.SECONDS}s` };
const executors = {
  "constant-vus": { ...load, executor: "constant-vus", vus: Number(__ENV.VUS) },
  "constant-arrival-rate": {
    ...load,
    executor: "constant-arrival-rate",
    rate: Number(__ENV.RATE),
    preAllocatedVUs: 200,
  },
};

export const options = {
  scenarios: { load: executors[__ENV.EXECUTOR] },
  summaryTrendStats: ["med", "p(99)"],
  discardResponseBodies: true,
};

export default function () {
  const pair = `${__VU}-${__ITER}`; // as behind the gateway, each call has a pair id of its own
  const headers = { "Content-Type": "application/json", "x-shadow-pair-id": pair };
  http.post(__ENV.URL, body, { headers });
}
