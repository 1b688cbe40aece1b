// The token for `new Realtime({ token: tokenFrom('/carillon/token/') })`. It survives an expired sign-in: a redirect to
// the sign-in page, 401 and 403 mean signed out (null); any other failure throws, and the module tries again.
export const tokenFrom = (url) => async () => {
  const answer = await fetch(url, { redirect: 'manual', credentials: 'same-origin', headers: { Accept: 'text/plain' } });
  if (answer.type === 'opaqueredirect' || answer.status === 401 || answer.status === 403) return null;
  if (!answer.ok) throw new Error(`no token: ${url} answered ${answer.status}`);
  return answer.text();
};
