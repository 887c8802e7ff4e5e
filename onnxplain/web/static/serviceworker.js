// Threads need shared memory, which a browser grants only to a page whose responses carry two
// headers (COOP, COEP). Static hosts do not send them, so they are added here, on the way.
// The policy that a page states in its <meta> does not reach its workers; here it does.

const HEADERS = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Content-Security-Policy':
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:",
};

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => event.respondWith(isolated(event.request)));

async function isolated(request) {
  const response = await fetch(request);
  if (response.status === 0) return response; // a redirect: the browser follows it itself
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
