// Cross-origin isolation, by the service worker: see there why.

const TRIED = 'onnxplain.isolation';

/**
 * Make the page isolated if this browser can: reloads it once, the first time.
 *
 * Without (an address that is not https or localhost, a private window) one thread has to do.
 */
export async function isolate() {
  if (self.crossOriginIsolated || !navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register('serviceworker.js');
    await navigator.serviceWorker.ready;
    if (sessionStorage.getItem(TRIED)) return; // reloaded, and still not: never in a circle
    sessionStorage.setItem(TRIED, 'yes');
  } catch {
    return;
  }
  location.reload();
  await new Promise(() => {}); // nothing more of this page before the reload
}
