import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { backtracking } from '../backtracking.js'
import { parsed } from './program.js'

/**
 * Patterns of lib that the analysis refuses, each with the reason why no text from outside makes them slow. Add one only
 * with such a bound; `withoutEnd`, `trim` and `indexOf` are linear.
 */
const EXCEPTIONS: Record<string, string> = {
  'hub/environment.ts /\\$(?:(\\w+)|\\{([^}]*)\\})/g': "values of the process's own environment variables",
}

/** Patterns that are put together while the program runs, by file: how many, and what bounds them. */
const COMPOSED: Record<string, [count: number, bound: string]> = {
  'models/encoders/fairseq.ts': [1, 'constants between anchors'],
  'models/encoders/speech-encoder.ts': [1, 'constants between anchors'],
  'models/encoders/speech-head.ts': [3, 'constants and fixed names'],
  'models/internvl/prompt.ts': [1, 'fixed markers, no repetition'],
  'models/languagebind/files.ts': [1, 'fixed names of parts, no repetition'],
  'models/units/files.ts': [1, 'numbers, no repetition'],
  'models/whisper/ctranslate2.ts': [1, 'constants'],
  'native/libtorch.ts': [1, 'constants'],
  'nn/text.ts': [1, "the caller's own glob on names of parameters"],
  'peft/patterns.ts': [1, 'runs under a time limit for all patterns together'],
  'systems/emoverse/evaluation/robust.ts': [1, 'a fixed word, no repetition'],
  'systems/spectra/network/files.ts': [1, 'fixed names'],
  'systems/spectra/tracking/text.ts': [1, 'fixed words, no repetition'],
  'systems/usdm/pretraining/prepare.ts': [1, 'a fixed name and digits'],
  'text/ctc-tokenizer.ts': [1, 'literal tokens, no repetition'],
  'text/patterns.ts': [1, 'published patterns, or under a time limit'],
  'text/postprocessors.ts': [1, 'one character'],
  'train/metrics/values.ts': [4, 'one class of characters, ending with it'],
  'train/parameter-groups.ts': [1, "the caller's own pattern on names of parameters"],
  'tuning/english-numbers.ts': [5, 'constants; digits follow one sign'],
  'tuning/normalize-text.ts': [3, 'fixed words, no repetition'],
}

/** Files that try sticky patterns at one place after another: a failure ends their reading, or what matched is not read again. */
const STICKY = ['files/json/parse.ts', 'files/npy/header.ts', 'text/jinja/lexer.ts']

const LIB = fileURLToPath(new URL('../../../lib/', import.meta.url))

interface Found {
  file: string
  literals: { source: string; flags: string }[]
  composed: number
}

function patternsOf(file: string): Found {
  const found: Found = { file: file.replaceAll('\\', '/'), literals: [], composed: 0 }
  const visit = (node: ts.Node): void => {
    if (ts.isRegularExpressionLiteral(node)) {
      const end = node.text.lastIndexOf('/')
      found.literals.push({ source: node.text.slice(1, end), flags: node.text.slice(end + 1) })
    }
    const isCall = ts.isNewExpression(node) || ts.isCallExpression(node)
    if (isCall && node.expression.getText() === 'RegExp') {
      const [source, flags] = node.arguments ?? []
      const isFixed = (one: ts.Node | undefined) => one === undefined || ts.isStringLiteralLike(one)
      if (source && isFixed(source) && isFixed(flags)) {
        found.literals.push({
          source: (source as ts.StringLiteralLike).text,
          flags: (flags as ts.StringLiteralLike | undefined)?.text ?? '',
        })
      } else found.composed += 1
    }
    ts.forEachChild(node, visit)
  }
  visit(parsed(file))
  return found
}

describe('the analysis of regular expressions', () => {
  it.each([
    // OWASP's examples of "evil" patterns: https://owasp.org/www-community/attacks/Regular_expression_Denial_of_Service_-_ReDoS
    '^(a+)+$',
    '^([a-zA-Z]+)*$',
    '^(a|aa)+$',
    '^(a|a?)+$',
    '^(.*a){12}$',
    '^(([a-z])+.)+[A-Z]([a-z])+$',
    // Inner steps that can be empty.
    '^(?:a?b?)*c',
    '^(?:x*,?)*;',
  ])('finds that %s is exponential', (source) => {
    expect(backtracking(source)).toMatch(/^exponential|^polynomial/)
  })

  it('tells exponential from polynomial patterns', () => {
    expect(backtracking('^(a+)+$')).toMatch(/^exponential/)
    expect(backtracking('^(?:a?b?)*c')).toMatch(/^exponential/)
    expect(backtracking('^a*a*$')).toMatch(/^polynomial/)
  })

  it.each([
    // Stack Overflow's outage of 2016: https://stackstatus.tumblr.com/post/147710624694/outage-postmortem-july-20-2016
    ['^[\\s\\u200c]+|[\\s\\u200c]+$', ''],
    // The core of Cloudflare's of 2019: https://blog.cloudflare.com/details-of-the-cloudflare-outage-on-july-2-2019/
    ['.*(?:.*=.*)', ''],
    ['^\\s*(\\S+)\\s+(.*?)\\s*$', ''],
    ['a*?b|a', 'g'],
    ['(?=.*x)y', ''],
    ['^\\s+x', 'm'],
    ['"(?:[^"\\\\]|\\\\.)*"', 'g'],
    ['^([^:()]{1,80}?)\\s*(?:\\(\\s*(\\p{L}+)\\s*\\))?\\s*:\\s*(\\S.*)$', 'u'],
    ['(?<=\\.\\w+)[,;]', ''],
    ['(a+)\\1b', ''],
  ])('finds that /%s/%s is polynomial', (source, flags) => {
    expect(backtracking(source, flags)).toBeDefined()
  })

  it.each([
    ['\\s+', 'g'],
    ['"[^"]*"', 'g'],
    ['^\\s*\\S', ''],
    ['^[^=\\n]*=', 'm'],
    ['\\.\\w+$', ''],
    ['"(?:[^"\\\\]|\\\\.)*"', 'y'],
    ['^(?:a|b)*$', ''],
    ['(?:x*)*', ''],
    ['<\\|[^|>]*\\|>', 'g'],
    ['^\\d+(?:\\.\\d*)?$', ''],
    ['[\\w-]{1,200}', ''],
  ])('lets /%s/%s pass', (source, flags) => {
    expect(backtracking(source, flags)).toBeUndefined()
  })
})

describe('the regular expressions of lib', () => {
  const files = readdirSync(LIB, { recursive: true, encoding: 'utf8' }).filter((file) => /\.(ts|js|mjs)$/.test(file))
  const all = files.map(patternsOf)

  it('need linear time, but for the exceptions that have a reason', () => {
    const slow = all.flatMap(({ file, literals }) =>
      literals.flatMap(({ source, flags }) => {
        const why = backtracking(source, flags)
        return why === undefined ? [] : [[`${file} /${source}/${flags}`, why] as const]
      }),
    )
    expect(slow.filter(([pattern]) => EXCEPTIONS[pattern] === undefined)).toEqual([])
    // An exception whose pattern has gone goes too.
    expect(Object.keys(EXCEPTIONS).sort()).toEqual([...new Set(slow.map(([pattern]) => pattern))].sort())
    expect(all.reduce((count, { literals }) => count + literals.length, 0)).toBeGreaterThan(500)
  })

  it('are composed only where something bounds them', () => {
    const composed = all.filter((one) => one.composed > 0).map((one) => [one.file, one.composed])
    const expected = Object.entries(COMPOSED).map(([file, [count]]) => [file, count])
    expect(composed.sort()).toEqual(expected.sort())
  })

  it('are sticky only where a failure ends the reading', () => {
    const sticky = all.filter(({ literals }) => literals.some(({ flags }) => flags.includes('y')))
    expect(sticky.map(({ file }) => file).sort()).toEqual(STICKY)
  })
})
