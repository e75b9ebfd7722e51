// 1,000 signed events a second for a minute; the run fails where p95 of the answer is above 100 ms or a post is refused.
//
// make loadtest runs it against a gateway of its own; against another one:
//
//   k6 run -e URL=http://127.0.0.1:3001/v1/webhooks/shop -e SECRET=whsec_... loadtests/webhooks.js
import http from 'k6/http';
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import { check } from 'k6';

const url = __ENV.URL || 'http://127.0.0.1:3001/v1/webhooks/shop';
const key = encoding.b64decode((__ENV.SECRET || '').replace(/^whsec_/, ''));
const rate = Number(__ENV.RATE || 1000);

export const options = {
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      rate: rate,
      timeUnit: '1s',
      duration: __ENV.DURATION || '60s',
      preAllocatedVUs: 500, // a pause of the machine shows in latencies, not in events never sent
      maxVUs: 2000,
    },
  },
  thresholds: {
    http_req_duration: ['p(95)<=100'],
    checks: ['rate==1'],
    dropped_iterations: ['count==0'],
  },
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const id = `k6-${__ENV.RUN || Date.now()}-${exec.vu.idInTest}-${number}`;
  const now = Math.floor(Date.now() / 1000);
  const body = JSON.stringify({ type: 'order.updated', order: { id: number, state: 'paid', total: '17.20' } });
  const signed = crypto.hmac('sha256', key, `${id}.${now}.${body}`, 'base64');
  const answer = http.post(url, body, {
    headers: {
      'Content-Type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': String(now),
      'webhook-signature': `v1,${signed}`,
    },
  });
  check(answer, { 'stored': (r) => r.status === 202 });
}
