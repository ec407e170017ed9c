import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import {
  type FftFunctions,
  type LinalgFunctions,
  moduleNames,
  type SpecialFunctions,
} from '../native/generated/namespaces.js'
import { ops } from './methods.js'
import { scope } from './scope.js'
import { isTensor, type Tensor } from './tensor.js'

/** Return the operators of one of PyTorch's modules, without the module's name. */
function moduleOf<T>(module: keyof typeof moduleNames): T {
  const all = ops as unknown as Record<string, unknown>
  const named = moduleNames[module].map((name) => [name, all[`${module}${name[0]!.toUpperCase()}${name.slice(1)}`]])
  return Object.fromEntries(named) as T
}

/** Compute a polynomial of degree `n` at `x`, element by element, with broadcasting. One of them is a tensor. */
type Polynomial = (x: Tensor | number, n: Tensor | number) => Tensor

/** The kernels sum over the degree, so it bounds the time for an element. */
const LARGEST_DEGREE = 10_000

function polynomial(name: string, operator: string): Polynomial {
  const run = op(`aten::special_${operator}`)
  return (x, n) => {
    const degree = isTensor(n) ? largest(n) : n
    if (typeof degree !== 'number' || !(degree <= LARGEST_DEGREE)) {
      throw new ConfigError(`special.${name}: expected degrees n of at most ${LARGEST_DEGREE}, got ${shown(degree)}`, {
        n,
      })
    }
    return run(x, n) as Tensor
  }
}

/** Return the largest element, 0 of no elements; NaN if there is one. */
const largest = (n: Tensor): number =>
  n.numel() === 0 || n.device === 'meta' ? 0 : scope(() => Number(n.detach().max().item()))

export interface PolynomialFunctions {
  /** Compute the Chebyshev polynomial of the first kind Tₙ(x). */
  readonly chebyshevPolynomialT: Polynomial
  /** Compute the Chebyshev polynomial of the second kind Uₙ(x). */
  readonly chebyshevPolynomialU: Polynomial
  /** Compute the Chebyshev polynomial of the third kind Vₙ(x). */
  readonly chebyshevPolynomialV: Polynomial
  /** Compute the Chebyshev polynomial of the fourth kind Wₙ(x). */
  readonly chebyshevPolynomialW: Polynomial
  /** Compute the physicist's Hermite polynomial Hₙ(x). */
  readonly hermitePolynomialH: Polynomial
  /** Compute the probabilist's Hermite polynomial Heₙ(x). */
  readonly hermitePolynomialHe: Polynomial
  /** Compute the Laguerre polynomial Lₙ(x). */
  readonly laguerrePolynomialL: Polynomial
  /** Compute the Legendre polynomial Pₙ(x). */
  readonly legendrePolynomialP: Polynomial
  /** Compute the Chebyshev polynomial of the first kind of 2x - 1. */
  readonly shiftedChebyshevPolynomialT: Polynomial
  /** Compute the Chebyshev polynomial of the second kind of 2x - 1. */
  readonly shiftedChebyshevPolynomialU: Polynomial
  /** Compute the Chebyshev polynomial of the third kind of 2x - 1. */
  readonly shiftedChebyshevPolynomialV: Polynomial
  /** Compute the Chebyshev polynomial of the fourth kind of 2x - 1. */
  readonly shiftedChebyshevPolynomialW: Polynomial
}

const polynomials: PolynomialFunctions = {
  chebyshevPolynomialT: polynomial('chebyshevPolynomialT', 'chebyshev_polynomial_t'),
  chebyshevPolynomialU: polynomial('chebyshevPolynomialU', 'chebyshev_polynomial_u'),
  chebyshevPolynomialV: polynomial('chebyshevPolynomialV', 'chebyshev_polynomial_v'),
  chebyshevPolynomialW: polynomial('chebyshevPolynomialW', 'chebyshev_polynomial_w'),
  hermitePolynomialH: polynomial('hermitePolynomialH', 'hermite_polynomial_h'),
  hermitePolynomialHe: polynomial('hermitePolynomialHe', 'hermite_polynomial_he'),
  laguerrePolynomialL: polynomial('laguerrePolynomialL', 'laguerre_polynomial_l'),
  legendrePolynomialP: polynomial('legendrePolynomialP', 'legendre_polynomial_p'),
  shiftedChebyshevPolynomialT: polynomial('shiftedChebyshevPolynomialT', 'shifted_chebyshev_polynomial_t'),
  shiftedChebyshevPolynomialU: polynomial('shiftedChebyshevPolynomialU', 'shifted_chebyshev_polynomial_u'),
  shiftedChebyshevPolynomialV: polynomial('shiftedChebyshevPolynomialV', 'shifted_chebyshev_polynomial_v'),
  shiftedChebyshevPolynomialW: polynomial('shiftedChebyshevPolynomialW', 'shifted_chebyshev_polynomial_w'),
}

/** Fourier transforms, PyTorch's torch.fft. */
export const fft: FftFunctions = moduleOf('fft')

/** Linear algebra, PyTorch's torch.linalg. Results of several tensors have its names: `const { U, S, Vh } = linalg.svd(A)`. */
export const linalg: LinalgFunctions = moduleOf('linalg')

/** Special functions, PyTorch's torch.special. */
export const special: SpecialFunctions & PolynomialFunctions = {
  ...moduleOf<SpecialFunctions>('special'),
  ...polynomials,
}
