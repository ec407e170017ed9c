// The hover text of the operators that are called most. generate.ts writes each sentence, with a link to PyTorch's page, above
// every signature of the operator. The sentences are in docs/operators.json. An in-place form takes the sentence of its operator,
// unless it has one of its own there.
import { readFileSync } from 'node:fs'

/** Sentences by module and name of PyTorch's page; {@link operatorNames} has the operators whose name differs. */
const sentences: Readonly<Record<string, Readonly<Record<string, string>>>> = JSON.parse(
  readFileSync(new URL('../docs/operators.json', import.meta.url), 'utf8'),
)

/** Prefixes of the operators of a module, by its page's name. */
export const prefixes: Readonly<Record<string, string>> = {
  'torch.fft': 'fft_',
  'torch.linalg': 'linalg_',
  'torch.special': 'special_',
}

/** Operators whose name differs from that of their page, and not only by the module in front. */
const operatorNames: Readonly<Record<string, string>> = {
  'torch.nn.functional.affine_grid': 'affine_grid_generator',
  'torch.nn.functional.cross_entropy': 'cross_entropy_loss',
  'torch.nn.functional.fold': 'col2im',
  'torch.nn.functional.grid_sample': 'grid_sampler',
  'torch.nn.functional.logsigmoid': 'log_sigmoid',
  'torch.nn.functional.unfold': 'im2col',
  'torch.nn.functional.upsample_bilinear': 'upsample_bilinear2d',
  'torch.nn.functional.upsample_nearest': 'upsample_nearest2d',
}

/** In-place forms without a page of their own: their link is that of the operator. */
const withoutPage = new Set(['as_strided_', 'deg2rad_', 'exp2_', 'heaviside_', 'rad2deg_', 'swapaxes_', 'swapdims_'])

/** In-place forms with a page in torch.nn.functional, which has none for the others. */
const functionalInPlace = new Set(['elu_', 'hardtanh_', 'leaky_relu_', 'relu_', 'rrelu_', 'threshold_'])

export interface OperatorDoc {
  sentence: string
  /** The name of PyTorch's page, such as `torch.nn.functional.relu`. */
  page: string
}

/** The operators with a sentence of their own, by ATen's name. */
export const operatorDocs: ReadonlyMap<string, OperatorDoc> = new Map(
  Object.entries(sentences).flatMap(([module, entries]) => {
    const prefix = prefixes[module] ?? ''
    return Object.entries(entries).map(([name, sentence]) => {
      const page = `${module}.${name}`
      return [operatorNames[page] ?? `${prefix}${name}`, { sentence, page }] as const
    })
  }),
)

function inPlacePage(page: string): string {
  const name = `${page.slice(page.lastIndexOf('.') + 1)}_`
  if (page.startsWith('torch.nn.functional.')) return functionalInPlace.has(name) ? `${page}_` : page
  return withoutPage.has(name) ? page : `torch.Tensor.${name}`
}

/** Say "in place" at the end of a sentence's first part: "Apply ReLU in place: set negative elements to 0." */
function inPlaceSentence(sentence: string): string {
  const end = /[;:] |\.$/.exec(sentence)!.index
  const start = sentence.slice(0, end)
  return `${start}${start.includes(',') ? ', in place' : ' in place'}${sentence.slice(end)}`
}

/** Return the doc of an operator, by ATen's name: its own, or for an in-place form the one made from its operator's. */
export function operatorDoc(operator: string): OperatorDoc | undefined {
  const own = operatorDocs.get(operator)
  if (own !== undefined || !operator.endsWith('_')) return own
  const doc = operatorDocs.get(operator.slice(0, -1))
  return doc && { sentence: inPlaceSentence(doc.sentence), page: inPlacePage(doc.page) }
}

const DOCS = 'https://docs.pytorch.org/docs/stable'

/** Functions of torch.special that its page does not mention. */
const undocumented = /^torch\.special\.(?:bessel_y[01]|modified_bessel_\w+|\w+_polynomial_\w+)$/

/** Return the address of PyTorch's page of that name; torch.special has one page for all of its functions. */
export function pageAddress(page: string): string {
  if (!page.startsWith('torch.special.')) return `${DOCS}/generated/${page}.html`
  return `${DOCS}/special.html${undocumented.test(page) ? '' : `#${page}`}`
}
