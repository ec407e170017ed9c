import { ConfigError, HubError } from '../base/errors.js'
import { withoutEnd } from '../base/words.js'
import { parseJson } from '../files/json/json.js'
import { request, type Wire, withRetries } from './http.js'

/**
 * The simple index of Python packages (https://packaging.python.org/en/latest/specifications/simple-repository-api/): PyPI, or the
 * mirror in pip's configuration.
 */
const PYPI = 'https://pypi.org/simple'

export interface PackageIndex {
  /** URL without user name and without a slash at the end. */
  url: string
  /** `user:password` of the URL, in base64. */
  basic?: string
}

/**
 * Return the package index.
 * @param indexUrl default: pip's `PIP_INDEX_URL`, or PyPI
 */
export function packageIndex(indexUrl?: string): PackageIndex {
  const from = indexUrl !== undefined ? 'indexUrl' : 'PIP_INDEX_URL'
  const text = indexUrl ?? (process.env.PIP_INDEX_URL || PYPI)
  const url = URL.canParse(text) ? new URL(text) : undefined
  // The message does not quote the URL, which may contain a password.
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw new ConfigError(`${from}: expected an http or https URL, got another text.`, { argument: from })
  const { username, password } = url
  url.username = ''
  url.password = ''
  url.hash = ''
  const basic = username === '' ? undefined : `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return {
    url: withoutEnd(url.href, /\//),
    ...(basic !== undefined && { basic: Buffer.from(basic).toString('base64') }),
  }
}

const MAX_PAGE = 1 << 24

/**
 * Return the URL of a package's wheel.
 * @throws HubError with the reason `not-found` if the index does not have it
 */
export function findWheel(wire: Wire, project: string, wheel: string): Promise<string> {
  const page = `${wire.endpoint}/${project}/`
  const headers = { accept: 'application/vnd.pypi.simple.v1+json, text/html;q=0.2' }
  return withRetries(wire, page, () =>
    request(wire, page, { headers }, async (response, alive) => {
      const parts: Uint8Array[] = []
      let size = 0
      for await (const part of response.body ?? []) {
        alive(part.length)
        size += part.length
        if (size > MAX_PAGE) throw unfit(page, `at most ${MAX_PAGE} bytes, got more`)
        parts.push(part)
      }
      const text = Buffer.concat(parts).toString()
      const isJson = /json/.test(response.headers.get('content-type') ?? '')
      const match = (isJson ? await linksOfJson(text, page) : linksOfHtml(text)).flatMap((link) => {
        const base = response.url || page
        const url = URL.canParse(link, base) ? new URL(link, base) : undefined
        return url !== undefined && /^https?:$/.test(url.protocol) && nameOf(url) === wheel ? [url] : []
      })[0]
      if (match === undefined) {
        throw new HubError(`${page}: does not have ${wheel}. Set --index-url or PIP_INDEX_URL to another index.`, {
          reason: 'not-found',
          url: page,
        })
      }
      match.hash = ''
      return match.href
    }),
  )
}

const unfit = (url: string, expected: string): HubError =>
  new HubError(`${url}: expected ${expected}. Check that it is an index of Python packages.`, {
    reason: 'integrity',
    url,
  })

async function linksOfJson(text: string, page: string): Promise<string[]> {
  let read: unknown
  try {
    read = await parseJson([Buffer.from(text)], page)
  } catch {
    throw unfit(page, 'JSON')
  }
  const { files } = (read ?? {}) as { files?: unknown }
  if (!Array.isArray(files)) throw unfit(page, 'a list of files')
  return files.flatMap((file) => {
    const url = (file as { url?: unknown } | null)?.url
    return typeof url === 'string' ? [url] : []
  })
}

const linksOfHtml = (text: string): string[] =>
  Array.from(text.matchAll(/<a\s[^<>]*?href\s*=\s*["']([^"'<>]*)["']/gi), ([, link]) =>
    (link as string).replaceAll('&amp;', '&'),
  )

function nameOf(url: URL): string {
  try {
    return decodeURIComponent(url.pathname.split('/').at(-1) ?? '')
  } catch {
    return ''
  }
}
