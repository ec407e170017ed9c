// The hover text of the operators that are called most. generate.ts writes each sentence, with a link to PyTorch's page, above
// every signature of the operator. An in-place form takes the sentence of its operator, unless it has one of its own here.

/** Sentences by module and name of PyTorch's page; {@link operatorNames} has the operators whose name differs. */
const sentences: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  torch: {
    // Creation
    arange:
      'Return a 1-D tensor of the values from `start` (default 0) up to, but not including, `end`, in steps of `step`.',
    bartlett_window: 'Return a Bartlett (triangular) window of `windowLength` samples, periodic by default.',
    blackman_window: 'Return a Blackman window of `windowLength` samples, periodic by default.',
    complex: 'Return the complex tensor with real part `real` and imaginary part `imag`.',
    empty: 'Return a tensor of shape `size` whose elements are not initialized.',
    empty_like: 'Return a tensor of the same shape, dtype and device whose elements are not initialized.',
    empty_strided: 'Return a tensor of shape `size` with the strides `stride` whose elements are not initialized.',
    eye: 'Return the identity matrix [n, n], or an [n, m] matrix with ones on its diagonal and zeros elsewhere.',
    full: 'Return a tensor of shape `size` whose elements are all `fillValue`.',
    full_like: 'Return a tensor of the same shape, dtype and device whose elements are all `fillValue`.',
    hamming_window: 'Return a Hamming window of `windowLength` samples, periodic by default.',
    hann_window: 'Return a Hann window of `windowLength` samples, periodic by default.',
    kaiser_window: 'Return a Kaiser window of `windowLength` samples with shape parameter `beta`, periodic by default.',
    linspace: 'Return `steps` evenly spaced values from `start` to `end`, both included.',
    logspace:
      'Return `steps` values from `base` to the power `start` to `base` to the power `end`, evenly spaced in the exponent.',
    ones: 'Return a tensor of shape `size` filled with 1.',
    ones_like: 'Return a tensor of the same shape, dtype and device filled with 1.',
    polar: 'Return the complex tensor with absolute value `abs` and angle `angle` in radians.',
    sparse_coo_tensor:
      'Return a sparse tensor with `values` at the coordinates `indices` [sparse dims, nnz]; duplicate coordinates add up.',
    sparse_csr_tensor: 'Return a sparse matrix in compressed row format, from row pointers, column indices and values.',
    tril_indices:
      'Return the row and column indices [2, n] of the lower triangle of a `row` × `col` matrix, up to diagonal `offset`.',
    triu_indices:
      'Return the row and column indices [2, n] of the upper triangle of a `row` × `col` matrix, from diagonal `offset` on.',
    vander:
      'Return the Vandermonde matrix [len, N] of a 1-D tensor, whose columns are its powers, in descending order by default.',
    zeros: 'Return a tensor of shape `size` filled with 0.',
    zeros_like: 'Return a tensor of the same shape, dtype and device filled with 0.',

    // Random numbers
    bernoulli: 'Draw 0 or 1 for each element, with the element itself, or `p`, as the probability of 1.',
    multinomial: 'Draw `numSamples` indices from each row of non-negative weights, without replacement by default.',
    normal: 'Draw from normal distributions with mean `mean` and standard deviation `std`, element by element.',
    poisson: 'Draw from a Poisson distribution for each element, with the element as its rate.',
    rand: 'Return a tensor of shape `size` with numbers drawn uniformly from [0, 1).',
    rand_like: 'Return a tensor of the same shape, dtype and device with numbers drawn uniformly from [0, 1).',
    randint:
      'Return a tensor of shape `size` with integers drawn uniformly from [`low`, `high`), where `low` defaults to 0.',
    randint_like:
      'Return a tensor of the same shape and dtype with integers drawn uniformly from [`low`, `high`), where `low` defaults to 0.',
    randn: 'Return a tensor of shape `size` with numbers drawn from the standard normal distribution.',
    randn_like:
      'Return a tensor of the same shape, dtype and device with numbers drawn from the standard normal distribution.',
    randperm: 'Return the integers 0 to `n` - 1 in random order, as a tensor [n].',

    // Indexing, joining and splitting
    adjoint: 'Return a view with the last two dimensions swapped and complex values conjugated.',
    argwhere: 'Return the indices [count, dimensions] of the elements that are not zero.',
    as_strided: 'View the memory with shape `size`, strides `stride` and offset `storageOffset`, in elements.',
    cat: 'Join tensors along the existing dimension `dim`; their other dimensions must match.',
    chunk: 'Split into at most `chunks` views of about equal size along `dim`; the last one may be smaller.',
    column_stack: 'Join tensors as columns: 1-D tensors become [n, 1] first.',
    concat: 'Join tensors along the existing dimension `dim`, like `cat`.',
    concatenate: 'Join tensors along the existing dimension `dim`, like `cat`.',
    conj: 'Return a view of the complex conjugate; a real tensor is returned unchanged.',
    diagonal_scatter: 'Return a copy with `src` written to the diagonal `offset` of dimensions `dim1` and `dim2`.',
    dsplit: 'Split along the third dimension into a number of equal sections, or at the given indices.',
    dstack: 'Join tensors along the third dimension, which is added where it is missing.',
    gather: 'Pick the elements at the positions `index` along `dim`; the result has the shape of `index`.',
    hsplit:
      'Split along the second dimension (the first of a 1-D tensor) into equal sections, or at the given indices.',
    hstack: 'Join tensors along the second dimension, or along the first if they are 1-D.',
    index_add: 'Return a copy with `source`, times `alpha`, added to the slices at `index` along `dim`.',
    index_copy: 'Return a copy with the slices at `index` along `dim` replaced by those of `source`.',
    index_reduce:
      "Return a copy with `source` reduced into the slices at `index` along `dim` by 'prod', 'mean', 'amax' or 'amin'.",
    index_select: 'Copy the slices at the 1-D `index` along `dim` into a new tensor, in that order.',
    masked_select: 'Return a 1-D tensor of the elements where the bool tensor `mask` is true.',
    moveaxis: 'Move the dimensions `source` to the positions `destination`, like `movedim`.',
    movedim: 'Move the dimensions `source` to the positions `destination`, as a view; the others keep their order.',
    narrow: 'Return a view of `length` slices along `dim`, beginning at `start`.',
    nonzero:
      'Return the indices [count, dimensions] of the elements that are not zero, or one tensor per dimension with `asTuple`.',
    permute: 'Return a view with the dimensions in the order `dims`.',
    reshape: 'Return the elements with shape `shape`, where one size may be -1; a view if possible, else a copy.',
    row_stack: 'Join tensors along the first dimension, like `vstack`.',
    scatter: 'Return a copy with `src` or `value` written to the positions `index` along `dim`.',
    scatter_add: 'Return a copy with `src` added to the elements at the positions `index` along `dim`.',
    scatter_reduce:
      "Return a copy with `src` reduced into the positions `index` along `dim` by 'sum', 'prod', 'mean', 'amax' or 'amin'.",
    select: 'Return a view of the slice `index` along `dim`, without that dimension.',
    select_scatter: 'Return a copy with `src` written to the slice `index` along `dim`.',
    slice_scatter: 'Return a copy with `src` written to the slices from `start` to `end` along `dim`, every `step`.',
    split:
      'Split along `dim` into views of size `splitSize`, the last one smaller if need be, or of the sizes given as a list.',
    squeeze: 'Remove the dimensions of size 1, all of them or only those in `dim`.',
    stack: 'Join tensors of equal shape along a new dimension `dim`.',
    swapaxes: 'Swap the dimensions `axis0` and `axis1`, like `transpose`.',
    swapdims: 'Swap the dimensions `dim0` and `dim1`, like `transpose`.',
    t: 'Transpose a matrix; a tensor of fewer than two dimensions keeps its shape.',
    take: 'Pick the elements at `index`, where the tensor counts as flattened; the result has the shape of `index`.',
    take_along_dim:
      'Pick the elements at `indices` along `dim`, broadcasting the other dimensions; pairs with `argsort` and `argmax`.',
    tensor_split: 'Split along `dim` into sections whose sizes differ by at most one, or at the given indices.',
    tile: 'Repeat the tensor `dims[i]` times along dimension i, adding leading dimensions if `dims` is longer.',
    transpose: 'Swap the dimensions `dim0` and `dim1`; the result shares the memory.',
    unbind: 'Return a list of the slices along `dim`, as views without that dimension.',
    unsqueeze: 'Insert a dimension of size 1 at position `dim`.',
    vsplit: 'Split along the first dimension into a number of equal sections, or at the given indices.',
    vstack: 'Join tensors along the first dimension; 1-D tensors become [1, n] first.',
    where:
      'Take elements from `self` where `condition` is true and from `other` elsewhere; `condition` alone gives its nonzero indices.',

    // Arithmetic, element by element
    abs: 'Compute the absolute value of each element; for complex elements, the magnitude.',
    absolute: 'Compute the absolute value of each element, like `abs`.',
    acos: 'Compute the inverse cosine of each element, in radians.',
    acosh: 'Compute the inverse hyperbolic cosine of each element.',
    add: 'Add `other`, times `alpha`, to each element, with broadcasting.',
    addcdiv: 'Add `value` times `tensor1` divided by `tensor2` to each element.',
    addcmul: 'Add `value` times the product of `tensor1` and `tensor2` to each element.',
    angle: 'Compute the angle of each complex element, in radians; for real elements, 0 or π.',
    arccos: 'Compute the inverse cosine of each element, like `acos`.',
    arccosh: 'Compute the inverse hyperbolic cosine of each element, like `acosh`.',
    arcsin: 'Compute the inverse sine of each element, like `asin`.',
    arcsinh: 'Compute the inverse hyperbolic sine of each element, like `asinh`.',
    arctan: 'Compute the inverse tangent of each element, like `atan`.',
    arctan2: 'Compute the angle of each point with y from `self` and x from `other`, like `atan2`.',
    arctanh: 'Compute the inverse hyperbolic tangent of each element, like `atanh`.',
    asin: 'Compute the inverse sine of each element, in radians.',
    asinh: 'Compute the inverse hyperbolic sine of each element.',
    atan: 'Compute the inverse tangent of each element, in radians.',
    atan2: 'Compute the angle in radians, from -π to π, of each point with y from `self` and x from `other`.',
    atanh: 'Compute the inverse hyperbolic tangent of each element.',
    bitwise_and: 'Compute the bitwise AND with `other`, of integer or bool elements.',
    bitwise_left_shift: 'Shift the bits of each integer element left by `other`.',
    bitwise_not: 'Invert the bits of each integer element, or the value of each bool element.',
    bitwise_or: 'Compute the bitwise OR with `other`, of integer or bool elements.',
    bitwise_right_shift: 'Shift the bits of each integer element right by `other`, keeping the sign.',
    bitwise_xor: 'Compute the bitwise XOR with `other`, of integer or bool elements.',
    ceil: 'Round each element up to an integer, in the same dtype.',
    clamp: 'Limit each element to the range from `min` to `max`, either of which may be left out.',
    clip: 'Limit each element to the range from `min` to `max`, like `clamp`.',
    conj_physical: 'Compute the complex conjugate of each element, in new memory rather than as a view.',
    copysign: 'Combine the magnitude of each element with the sign of `other`.',
    cos: 'Compute the cosine of each element, in radians.',
    cosh: 'Compute the hyperbolic cosine of each element.',
    deg2rad: 'Convert each element from degrees to radians.',
    digamma: 'Compute the digamma function of each element: the derivative of `lgamma`.',
    div: "Divide each element by `other`; the result is floating-point unless `roundingMode` is 'trunc' or 'floor'.",
    divide: 'Divide each element by `other`, like `div`.',
    erf: 'Compute the error function of each element.',
    erfc: 'Compute the complementary error function, 1 - erf(x), of each element.',
    erfinv: 'Compute the inverse of the error function of each element, for values in (-1, 1).',
    exp: 'Compute e to the power of each element.',
    exp2: 'Compute 2 to the power of each element.',
    expm1: 'Compute exp(x) - 1 for each element, precisely for small x.',
    fix: 'Drop the fraction of each element, like `trunc`.',
    float_power: 'Raise each element to the power `exponent`, computing in float64 or complex128.',
    floor: 'Round each element down to an integer, in the same dtype.',
    floor_divide: 'Divide each element by `other` and round the quotient down.',
    fmod: 'Compute the remainder of dividing each element by `other`, with the sign of the element, as in C.',
    frac: 'Subtract the integer part from each element, which keeps the sign.',
    frexp: 'Split each element into a mantissa in [0.5, 1) and an exponent of 2, with the sign in the mantissa.',
    gcd: 'Compute the greatest common divisor of each integer element and `other`.',
    gradient:
      'Estimate the gradient from samples by central differences; return one tensor for each dimension in `dim`.',
    heaviside: 'Compute the step function: 0 for negative elements, 1 for positive ones, and `values` for zeros.',
    hypot: 'Compute the length of the hypotenuse of the legs `self` and `other`, element by element.',
    i0: 'Compute the modified Bessel function of the first kind of order 0 of each element.',
    igamma: 'Compute the regularized lower incomplete gamma function of each element and `other`.',
    igammac: 'Compute the regularized upper incomplete gamma function of each element and `other`.',
    imag: 'Return the imaginary part of a complex tensor, as a view.',
    lcm: 'Compute the least common multiple of each integer element and `other`.',
    ldexp: 'Multiply each element by 2 to the power `other`.',
    lerp: 'Interpolate linearly between `self` (`weight` 0) and `end` (`weight` 1).',
    lgamma: 'Compute log(|Γ(x)|) for each element x, where Γ is the gamma function.',
    log: 'Compute the natural logarithm of each element.',
    log10: 'Compute the logarithm to base 10 of each element.',
    log1p: 'Compute log(1 + x) for each element, precisely for small x.',
    log2: 'Compute the logarithm to base 2 of each element.',
    logaddexp: 'Compute log(exp(self) + exp(other)) of each pair of elements, without overflow.',
    logaddexp2: 'Compute log2(2^self + 2^other) of each pair of elements, without overflow.',
    logical_and: 'Compute the logical AND with `other` as a bool tensor; elements that are not zero count as true.',
    logical_not: 'Compute the logical NOT of each element as a bool tensor; elements that are not zero count as true.',
    logical_or: 'Compute the logical OR with `other` as a bool tensor; elements that are not zero count as true.',
    logical_xor: 'Compute the logical XOR with `other` as a bool tensor; elements that are not zero count as true.',
    logit:
      'Compute log(x / (1 - x)), the inverse of the sigmoid, of each element, limited to [`eps`, 1 - `eps`] if `eps` is given.',
    mul: 'Multiply each element by `other`, with broadcasting.',
    multiply: 'Multiply each element by `other`, like `mul`.',
    mvlgamma: 'Compute the logarithm of the multivariate gamma function with dimension `p` of each element.',
    nan_to_num:
      'Replace NaN by `nan` (0 by default) and infinities by `posinf` and `neginf` (the limits of the dtype by default).',
    neg: 'Negate each element.',
    negative: 'Negate each element, like `neg`.',
    nextafter: 'Compute the next representable number after each element, in the direction of `other`.',
    polygamma: 'Compute the derivative of order `n` of the digamma function of each element.',
    positive: 'Return the tensor unchanged; bool tensors are refused.',
    pow: 'Raise each element to the power `exponent`.',
    rad2deg: 'Convert each element from radians to degrees.',
    real: 'Return the real part of a complex tensor, as a view; a real tensor is returned unchanged.',
    reciprocal: 'Compute 1 / x for each element.',
    remainder: 'Compute the remainder of dividing each element by `other`, with the sign of `other`, as in Python.',
    round:
      'Round each element to the nearest integer, or to `decimals` decimal places; halves go to the even neighbor.',
    rsqrt: 'Compute 1 / sqrt(x) for each element.',
    sgn: 'Compute the sign of each element; for complex elements, the element divided by its magnitude.',
    sigmoid: 'Compute the sigmoid, 1 / (1 + exp(-x)), of each element.',
    sign: 'Compute the sign of each element: -1, 0 or 1.',
    signbit: 'Return a bool tensor that is true where the sign bit is set, which includes -0.',
    sin: 'Compute the sine of each element, in radians.',
    sinc: 'Compute the normalized sinc function, sin(πx) / (πx), of each element.',
    sinh: 'Compute the hyperbolic sine of each element.',
    softmax: 'Compute the softmax along `dim`: positive values that sum to 1.',
    sqrt: 'Compute the square root of each element.',
    square: 'Compute the square of each element.',
    sub: 'Subtract `other`, times `alpha`, from each element, with broadcasting.',
    subtract: 'Subtract `other`, times `alpha`, from each element, like `sub`.',
    tan: 'Compute the tangent of each element, in radians.',
    tanh: 'Compute the hyperbolic tangent of each element.',
    true_divide: 'Divide each element by `other` with a floating-point result, like `div` without rounding.',
    trunc: 'Drop the fraction of each element: round toward zero.',
    xlogy: 'Compute x * log(other) for each element x; the result is 0 where x is 0.',

    // Reductions
    all: 'Return whether all elements, or all along `dim`, are true or not zero.',
    amax: 'Return the maximum of all elements, or over the dimensions `dim`; equal maxima share the gradient evenly.',
    amin: 'Return the minimum of all elements, or over the dimensions `dim`; equal minima share the gradient evenly.',
    aminmax: 'Return `{ min, max }`: the minimum and maximum of all elements, or along `dim`.',
    any: 'Return whether any element, or any along `dim`, is true or not zero.',
    argmax: 'Return the index of the maximum along `dim`, or in the flattened tensor.',
    argmin: 'Return the index of the minimum along `dim`, or in the flattened tensor.',
    count_nonzero: 'Return the number of elements that are not zero, in all or along `dim`.',
    dist: 'Return the `p`-norm of the difference of `self` and `other`, as a scalar tensor.',
    logsumexp: 'Return the logarithm of the sum of exponentials along `dim`, without overflow.',
    max: 'Return the maximum of all elements, `{ values, indices }` along `dim`, or the larger elements of two tensors.',
    mean: 'Return the mean of all elements, or along `dim`; the dtype must be floating-point or complex.',
    median:
      'Return the median of all elements, or `{ values, indices }` along `dim`; of two middle values, the lower one.',
    min: 'Return the minimum of all elements, `{ values, indices }` along `dim`, or the smaller elements of two tensors.',
    mode: 'Return `{ values, indices }` of the most frequent value along `dim`; of equally frequent ones, the smallest.',
    nanmean: 'Return the mean of the elements that are not NaN, in all or along `dim`.',
    nanmedian: 'Return the median of the elements that are not NaN, in all or as `{ values, indices }` along `dim`.',
    nanquantile: 'Return the quantiles `q` of the elements that are not NaN, in all or along `dim`.',
    nansum: 'Return the sum of all elements, or along `dim`, where NaN counts as 0.',
    norm: "Return the `p`-norm of all elements, or along `dim`; `p` may also be 'fro' or 'nuc'.",
    prod: 'Return the product of all elements, or along `dim`.',
    quantile:
      'Return the quantiles `q`, each in [0, 1], of all elements or along `dim`, interpolating linearly by default.',
    std: 'Return the standard deviation of all elements, or along `dim`, with `correction` 1 (unbiased) by default.',
    std_mean: 'Return the standard deviation and the mean of all elements, or along `dim`.',
    sum: 'Return the sum of all elements, or along `dim`; bool and integer elements are summed in int64.',
    unique_consecutive:
      'Remove repeats of equal neighbors and return values, inverse indices and counts; the last two are empty unless requested.',
    var: 'Return the variance of all elements, or along `dim`, with `correction` 1 (unbiased) by default.',
    var_mean: 'Return the variance and the mean of all elements, or along `dim`.',

    // Comparison and sorting
    allclose:
      'Return whether all elements of two tensors differ by at most `atol` + `rtol` times the magnitude of `other`.',
    argsort: 'Return the indices that sort the tensor along `dim`, ascending unless `descending`.',
    eq: 'Compare with `other`: true where the elements are equal.',
    equal: 'Return whether two tensors have the same shape and equal elements.',
    fmax: 'Return the larger of each pair of elements; if one is NaN, the other.',
    fmin: 'Return the smaller of each pair of elements; if one is NaN, the other.',
    ge: 'Compare with `other`: true where the element is greater or equal.',
    greater: 'Compare with `other`: true where the element is greater, like `gt`.',
    greater_equal: 'Compare with `other`: true where the element is greater or equal, like `ge`.',
    gt: 'Compare with `other`: true where the element is greater.',
    isclose:
      'Return a bool tensor, true where two elements differ by at most `atol` + `rtol` times the magnitude of `other`.',
    isfinite: 'Return a bool tensor, true where the element is neither infinite nor NaN.',
    isin: 'Return a bool tensor, true where the element is one of `testElements`.',
    isinf: 'Return a bool tensor, true where the element is positive or negative infinity.',
    isnan: 'Return a bool tensor, true where the element is NaN.',
    isneginf: 'Return a bool tensor, true where the element is negative infinity.',
    isposinf: 'Return a bool tensor, true where the element is positive infinity.',
    isreal: 'Return a bool tensor, true where the imaginary part of the element is 0.',
    kthvalue: 'Return `{ values, indices }` of the `k`-th smallest element along `dim`, counting from 1.',
    le: 'Compare with `other`: true where the element is less or equal.',
    less: 'Compare with `other`: true where the element is less, like `lt`.',
    less_equal: 'Compare with `other`: true where the element is less or equal, like `le`.',
    lt: 'Compare with `other`: true where the element is less.',
    maximum: 'Return the larger of each pair of elements; NaN if either is NaN.',
    minimum: 'Return the smaller of each pair of elements; NaN if either is NaN.',
    msort: 'Sort the elements along the first dimension, ascending.',
    ne: 'Compare with `other`: true where the elements differ.',
    not_equal: 'Compare with `other`: true where the elements differ, like `ne`.',
    sort: 'Sort along `dim`, ascending unless `descending`, and return `{ values, indices }`.',
    topk: 'Return `{ values, indices }` of the `k` largest elements along `dim`, or of the smallest with `largest` false.',

    // Spectra
    istft:
      'Reconstruct a signal from its short-time Fourier transform, by overlap-add with the same `window` as in `stft`.',
    stft: 'Compute the short-time Fourier transform of [batch, samples]: [batch, frequencies, frames]; real input needs `returnComplex`.',

    // Other operations
    atleast_1d: 'Return a view of the tensor with at least one dimension: a scalar becomes [1].',
    atleast_2d: 'Return a view of the tensor with at least two dimensions: [n] becomes [1, n].',
    atleast_3d:
      'Return a view of the tensor with at least three dimensions: [n] becomes [1, n, 1], and [m, n] becomes [m, n, 1].',
    bincount: 'Count how often each non-negative integer occurs in a 1-D tensor, or sum its `weights`.',
    block_diag: 'Return the block-diagonal matrix of the given tensors.',
    broadcast_tensors: 'Expand tensors to their common broadcast shape, as views.',
    broadcast_to: 'Expand dimensions of size 1 to the shape `size`, as a view.',
    bucketize: 'Return for each element the index of the interval of the sorted, 1-D `boundaries` that it falls into.',
    cartesian_prod: 'Return all combinations [count, n] of one element from each of n 1-D tensors.',
    cdist: 'Compute the `p`-norm distance of each pair of rows: [..., m, d] and [..., n, d] give [..., m, n].',
    clone: 'Copy the tensor; gradients flow back to the original.',
    combinations: 'Return all combinations [count, r] of `r` elements of a 1-D tensor, without replacement by default.',
    corrcoef: 'Compute the correlation matrix of variables [variables, observations].',
    cov: 'Compute the covariance matrix of variables [variables, observations], with `correction` 1 by default.',
    cross: 'Compute the cross product of vectors of 3 elements along `dim`, by default the first dimension of size 3.',
    cummax: 'Return `{ values, indices }` of the running maximum along `dim`.',
    cummin: 'Return `{ values, indices }` of the running minimum along `dim`.',
    cumprod: 'Compute the running product along `dim`.',
    cumsum: 'Compute the running sum along `dim`.',
    diag: 'Return the diagonal of a matrix, or the matrix with a 1-D tensor as its diagonal.',
    diag_embed: 'Return matrices whose diagonals are the last dimension: [..., n] gives [..., n, n].',
    diagflat: 'Return the matrix with the flattened tensor as its diagonal.',
    diagonal: 'Return a view of the diagonal of dimensions `dim1` and `dim2`, appended as the last dimension.',
    diff: 'Compute the differences of neighbors along `dim`, `n` times.',
    einsum: "Sum products of elements by an index equation, such as 'bij,bjk->bik' for a batched matrix product.",
    flatten: 'Merge the dimensions from `startDim` to `endDim` into one; a view if possible, else a copy.',
    flip: 'Reverse the order of the elements along the dimensions `dims`, as a copy.',
    fliplr: 'Reverse the order of the columns (the second dimension), as a copy.',
    flipud: 'Reverse the order of the rows (the first dimension), as a copy.',
    histc:
      'Count the elements in `bins` equal intervals from `min` to `max`; if both are 0, over the range of the elements.',
    histogram: 'Return `{ hist, binEdges }`: counts, or sums of `weight`, of the elements in each bin.',
    kron: 'Compute the Kronecker product of two tensors.',
    logcumsumexp: 'Compute the logarithm of the running sum of exponentials along `dim`, without overflow.',
    meshgrid: "Expand 1-D tensors to grids of coordinates, indexed 'ij' (rows first) by default, or 'xy'.",
    ravel: 'Flatten the tensor to one dimension; a view if possible, else a copy.',
    renorm: 'Scale down each slice along `dim` whose `p`-norm exceeds `maxnorm`, to that norm.',
    repeat_interleave: 'Repeat each element `repeats` times along `dim`, or of the flattened tensor.',
    roll: 'Shift the elements by `shifts` along `dims`; elements pushed out at the end enter at the beginning.',
    rot90: 'Rotate the plane of the two dimensions `dims` by 90 degrees, `k` times.',
    searchsorted: 'Return the indices at which values can be inserted into `sortedSequence` so that it stays sorted.',
    tensordot: 'Sum products over pairs of dimensions of two tensors: `dims` is their number or two lists.',
    trace: 'Return the sum of the diagonal of a matrix.',
    trapezoid: 'Integrate along `dim` by the trapezoidal rule, with spacing `dx` or at the positions `x`.',
    tril: 'Keep the lower triangle of each matrix, up to `diagonal`, and set the rest to 0.',
    triu: 'Keep the upper triangle of each matrix, from `diagonal` on, and set the rest to 0.',
    unflatten: 'Split dimension `dim` into dimensions of the given `sizes`, of which one may be -1.',
    view_as_complex: 'View a real tensor [..., 2] as a complex tensor [...].',
    view_as_real: 'View a complex tensor [...] as a real tensor [..., 2].',

    // Linear algebra
    addbmm: 'Add the sum of batched matrix products, times `alpha`, to `beta` times `self` [n, p].',
    addmm: 'Add the matrix product of `mat1` [n, m] and `mat2` [m, p], times `alpha`, to `beta` times `self`.',
    addmv: 'Add the product of `mat` [n, m] and `vec` [m], times `alpha`, to `beta` times `self`.',
    addr: 'Add the outer product of `vec1` [n] and `vec2` [m], times `alpha`, to `beta` times `self`.',
    baddbmm:
      'Add the matrix products of `batch1` [b, n, m] and `batch2` [b, m, p], times `alpha`, to `beta` times `self`.',
    bmm: 'Compute the matrix products of two batches: [b, n, m] and [b, m, p] give [b, n, p].',
    chain_matmul: 'Compute the product of a chain of matrices in the order that needs the fewest operations.',
    cholesky: 'Compute the Cholesky factor, lower unless `upper`; prefer `linalgCholesky`.',
    cholesky_inverse: 'Compute the inverse of a positive-definite matrix from its Cholesky factor.',
    cholesky_solve:
      'Solve linear equations with right-hand sides `self`, from the Cholesky factor `input2` of the matrix.',
    det: 'Compute determinants: [..., n, n] gives [...].',
    dot: 'Multiply two 1-D tensors of equal length and sum the products.',
    inner: 'Compute the inner products over the last dimension of two tensors.',
    inverse: 'Compute the inverse of each square matrix, like `linalgInv`.',
    logdet: 'Compute the natural logarithm of the determinant: NaN if the determinant is negative.',
    matmul:
      'Compute the matrix product of the last two dimensions, broadcasting the others; 1-D tensors count as vectors.',
    matrix_exp: 'Compute matrix exponentials: [..., n, n] gives [..., n, n].',
    matrix_power: 'Raise each square matrix to the integer power `n`; negative powers use the inverse.',
    mm: 'Compute the matrix product of two matrices: [n, m] and [m, p] give [n, p].',
    mv: 'Compute the product of a matrix [n, m] and a vector [m]: [n].',
    outer: 'Compute the outer product of two 1-D tensors: [n] and [m] give [n, m].',
    pinverse: 'Compute the pseudoinverse of each matrix, like `linalgPinv`.',
    qr: 'Compute the QR decomposition; prefer `linalgQr`.',
    slogdet: 'Compute the sign and the logarithm of the absolute value of the determinant.',
    svd: 'Compute `{ U, S, V }` of the singular value decomposition; prefer `linalgSvd`, which returns V transposed.',
    vdot: 'Compute the dot product of two 1-D tensors, with the first one conjugated.',

    // dtypes
    can_cast: "Return whether PyTorch's promotion rules allow a conversion from one dtype to another.",
    is_complex: 'Return whether the dtype is complex.',
    is_floating_point: 'Return whether the dtype is floating-point, which does not include complex.',
    is_nonzero: 'Return whether the only element of the tensor is not zero.',
    promote_types: 'Return the dtype that an operation on the two dtypes computes in.',
    result_type: 'Return the dtype of the result of an arithmetic operation on the two inputs.',
    resolve_conj: 'Compute a lazily conjugated tensor in new memory; any other tensor is returned unchanged.',
  },

  'torch.Tensor': {
    bernoulli_: 'Fill the tensor with draws of 0 or 1, where `p` is the probability of 1, in place.',
    cauchy_: 'Fill the tensor with draws from the Cauchy distribution around `median` with scale `sigma`, in place.',
    conj_physical_: 'Replace each element by its complex conjugate, in place.',
    contiguous: 'Return the tensor with its elements in row-major order in memory; a copy only if they are not.',
    copy_: 'Copy the elements of `src` into the tensor, converting dtype and device and broadcasting, in place.',
    detach: 'Return a tensor that shares the memory and takes no part in gradients.',
    detach_: 'Detach the tensor from the operations that computed it, so that no gradient flows to them, in place.',
    div_: "Divide each element by `other`, in place; an integer tensor needs the `roundingMode` 'trunc' or 'floor'.",
    divide_: 'Divide each element by `other`, in place, like `div_`.',
    eq_: 'Set each element to 1 where it equals `other` and to 0 elsewhere, in place.',
    expand: 'Expand dimensions of size 1 to the sizes `size`, as a view; -1 keeps a size.',
    expand_as: 'Expand dimensions of size 1 to the shape of `other`, as a view.',
    exponential_: 'Fill the tensor with draws from the exponential distribution with rate `lambd`, in place.',
    fill_: 'Set all elements to `value`, in place.',
    fill_diagonal_: 'Set the elements of the main diagonal to `fillValue`, in place.',
    float_power_: 'Raise each element of a float64 or complex128 tensor to the power `exponent`, in place.',
    ge_: 'Set each element to 1 where it is greater than or equal to `other` and to 0 elsewhere, in place.',
    geometric_: 'Fill the tensor with draws from the geometric distribution with success probability `p`, in place.',
    greater_: 'Set each element to 1 where it is greater than `other` and to 0 elsewhere, in place, like `gt_`.',
    greater_equal_:
      'Set each element to 1 where it is greater than or equal to `other` and to 0 elsewhere, in place, like `ge_`.',
    gt_: 'Set each element to 1 where it is greater than `other` and to 0 elsewhere, in place.',
    index_add_: 'Add `source`, times `alpha`, to the slices at `index` along `dim`, in place.',
    index_copy_: 'Replace the slices at `index` along `dim` by those of `source`, in place.',
    index_fill: 'Return a copy with the slices at `index` along `dim` set to `value`.',
    index_fill_: 'Set the slices at `index` along `dim` to `value`, in place.',
    index_put: 'Return a copy with `values` written to the positions `indices`, or added to them with `accumulate`.',
    index_put_: 'Write `values` to the positions `indices`, or add them with `accumulate`, in place.',
    index_reduce_:
      "Reduce `source` into the slices at `index` along `dim` by 'prod', 'mean', 'amax' or 'amin', in place.",
    le_: 'Set each element to 1 where it is less than or equal to `other` and to 0 elsewhere, in place.',
    less_: 'Set each element to 1 where it is less than `other` and to 0 elsewhere, in place, like `lt_`.',
    less_equal_:
      'Set each element to 1 where it is less than or equal to `other` and to 0 elsewhere, in place, like `le_`.',
    log_normal_: 'Fill the tensor with exponentials of draws from a normal distribution, in place.',
    logical_and_: 'Set each element to 1 where it and `other` are not zero and to 0 elsewhere, in place.',
    logical_not_: 'Set each element to 1 where it is zero and to 0 elsewhere, in place.',
    logical_or_: 'Set each element to 1 where it or `other` is not zero and to 0 elsewhere, in place.',
    logical_xor_: 'Set each element to 1 where exactly one of it and `other` is not zero and to 0 elsewhere, in place.',
    lt_: 'Set each element to 1 where it is less than `other` and to 0 elsewhere, in place.',
    masked_fill: 'Return a copy with `value` where the bool tensor `mask` is true.',
    masked_fill_: 'Set the elements where the bool tensor `mask` is true to `value`, in place.',
    masked_scatter: 'Return a copy with the elements where `mask` is true replaced by those of `source`, in order.',
    masked_scatter_: 'Replace the elements where `mask` is true by those of `source`, in order and in place.',
    ne_: 'Set each element to 1 where it differs from `other` and to 0 elsewhere, in place.',
    new_empty: 'Return a tensor of shape `size`, not initialized, with the dtype and device of `self`.',
    new_full: 'Return a tensor of shape `size` filled with `fillValue`, with the dtype and device of `self`.',
    new_ones: 'Return a tensor of shape `size` filled with 1, with the dtype and device of `self`.',
    new_zeros: 'Return a tensor of shape `size` filled with 0, with the dtype and device of `self`.',
    normal_: 'Fill the tensor with draws from the normal distribution with `mean` and `std`, in place.',
    not_equal_: 'Set each element to 1 where it differs from `other` and to 0 elsewhere, in place, like `ne_`.',
    pin_memory: 'Copy the tensor to page-locked memory, from which copies to a GPU can be asynchronous.',
    put_: 'Write `source` to the positions `index` of the flattened tensor, or add it with `accumulate`, in place.',
    random_: 'Fill the tensor with integers drawn uniformly from the given range, or from that of the dtype, in place.',
    repeat: 'Copy the tensor `repeats[i]` times along dimension i; unlike `repeatInterleave`, it repeats the whole.',
    requires_grad_: 'Set whether operations on the tensor are recorded for gradients, in place.',
    reshape_as: 'Return the elements with the shape of `other`; a view if possible, else a copy.',
    resize_: 'Change the shape to `size`, in place; new elements are not initialized.',
    resize_as_: 'Change the shape to that of another tensor, in place; new elements are not initialized.',
    scatter_: 'Write `src` or `value` to the positions `index` along `dim`, in place.',
    scatter_add_: 'Add `src` to the elements at the positions `index` along `dim`, in place.',
    scatter_reduce_:
      "Reduce `src` into the positions `index` along `dim` by 'sum', 'prod', 'mean', 'amax' or 'amin', in place.",
    sparse_mask:
      'Keep the elements of a dense tensor at the positions of the sparse tensor `mask`, as a sparse tensor.',
    stride: 'Return the step in memory, in elements, from one element to the next along `dim`.',
    sum_to_size: 'Sum the tensor to the shape `size`, which must be broadcastable to its own.',
    to: 'Convert to another dtype or device; the tensor itself is returned if nothing changes.',
    to_dense: 'Convert a sparse tensor to a dense one.',
    to_sparse: 'Convert to a sparse tensor, in coordinate format by default.',
    true_divide_: 'Divide each element of a floating-point tensor by `other`, in place.',
    type_as: 'Convert to the dtype and device of `other`.',
    unfold:
      'Return a view of windows of `size` elements, every `step`, along `dimension`; windows are the last dimension.',
    uniform_: 'Fill the tensor with numbers drawn uniformly from [`from`, `to`), in place.',
    view: 'Return a view with shape `size`, where one size may be -1; an error if the memory layout needs a copy.',
    view_as: 'Return a view with the shape of `other`.',
    zero_: 'Set all elements to 0, in place.',
  },

  'torch.nn.functional': {
    // Convolution and pooling
    adaptive_avg_pool1d: 'Average over windows chosen so that [N, C, L] becomes [N, C, outputSize].',
    adaptive_avg_pool2d: 'Average over windows chosen so that [N, C, H, W] gets the height and width `outputSize`.',
    adaptive_avg_pool3d:
      'Average over windows chosen so that [N, C, D, H, W] gets the depth, height and width `outputSize`.',
    adaptive_max_pool1d:
      'Return maxima and their indices over windows chosen so that [N, C, L] becomes [N, C, outputSize].',
    adaptive_max_pool2d:
      'Return maxima and their indices over windows chosen so that [N, C, H, W] gets the size `outputSize`.',
    adaptive_max_pool3d:
      'Return maxima and their indices over windows chosen so that [N, C, D, H, W] gets the size `outputSize`.',
    avg_pool1d: 'Average over windows of `kernelSize` elements of [N, C, L].',
    avg_pool2d: 'Average over windows of size `kernelSize` of [N, C, H, W].',
    avg_pool3d: 'Average over windows of size `kernelSize` of [N, C, D, H, W].',
    conv1d: 'Apply a 1-D convolution with `weight` [out, in / groups, K] to [N, in, L].',
    conv2d: 'Apply a 2-D convolution with `weight` [out, in / groups, KH, KW] to [N, in, H, W].',
    conv3d: 'Apply a 3-D convolution with `weight` [out, in / groups, KD, KH, KW] to [N, in, D, H, W].',
    conv_transpose1d: 'Apply a transposed 1-D convolution with `weight` [in, out / groups, K] to [N, in, L].',
    conv_transpose2d: 'Apply a transposed 2-D convolution with `weight` [in, out / groups, KH, KW] to [N, in, H, W].',
    conv_transpose3d:
      'Apply a transposed 3-D convolution with `weight` [in, out / groups, KD, KH, KW] to [N, in, D, H, W].',
    fold: 'Sum sliding blocks [N, C * KH * KW, blocks] back into images [N, C, H, W]: the adjoint of `im2col`.',
    max_pool1d: 'Return the maximum of each window of `kernelSize` elements of [N, C, L].',
    max_pool2d: 'Return the maximum of each window of size `kernelSize` of [N, C, H, W].',
    max_pool3d: 'Return the maximum of each window of size `kernelSize` of [N, C, D, H, W].',
    max_unpool2d: 'Write pooled maxima back to their `indices` in a zero tensor of size `outputSize`.',
    unfold: 'Extract sliding blocks of images [N, C, H, W] as columns [N, C * KH * KW, blocks].',

    // Attention and activations
    celu: 'Apply CELU: x if positive, else `alpha` * (exp(x / `alpha`) - 1).',
    elu: 'Apply ELU: x if positive, else `alpha` * (exp(x) - 1).',
    gelu: "Apply GELU, x times the normal distribution function of x; with `approximate` 'tanh', its approximation.",
    glu: 'Split into two halves along `dim` and multiply the first by the sigmoid of the second.',
    hardshrink: 'Set the elements from -`lambd` to `lambd` to 0 and keep the others.',
    hardsigmoid: 'Apply a piecewise linear sigmoid: x / 6 + 0.5, limited to [0, 1].',
    hardswish: 'Apply hard swish: x times its hard sigmoid.',
    hardtanh: 'Limit each element to the range from `minVal` to `maxVal`, -1 to 1 by default.',
    leaky_relu: 'Apply leaky ReLU: x if positive, else `negativeSlope` * x.',
    log_softmax: 'Compute the logarithm of the softmax along `dim`, more precisely than log and softmax.',
    logsigmoid: 'Compute the logarithm of the sigmoid of each element, without overflow.',
    mish: 'Apply Mish: x * tanh(softplus(x)).',
    prelu: 'Apply leaky ReLU with the learned slope `weight`: one for all channels or one for each.',
    relu: 'Apply ReLU: set negative elements to 0.',
    relu6: 'Apply ReLU6: limit each element to [0, 6].',
    rrelu: 'Apply leaky ReLU with slopes drawn from [`lower`, `upper`) in training, and with their mean otherwise.',
    scaled_dot_product_attention:
      'Compute attention from queries [..., L, E], keys [..., S, E] and values [..., S, Ev]: [..., L, Ev].',
    selu: 'Apply SELU: a scaled ELU with fixed constants that keep activations normalized.',
    silu: 'Apply SiLU, also named swish: x * sigmoid(x).',
    softplus: 'Apply softplus: log(1 + exp(`beta` * x)) / `beta`, linear where `beta` * x exceeds `threshold`.',
    softshrink: 'Shrink each element toward 0 by `lambd`; those within `lambd` of 0 become 0.',
    threshold: 'Replace the elements that do not exceed `threshold` by `value`.',

    // Normalization
    batch_norm: 'Normalize each channel of [N, C, ...] over the batch, or by the running statistics if not `training`.',
    group_norm:
      'Normalize [N, C, ...] over each of `numGroups` groups of channels, then scale by `weight` and add `bias`.',
    instance_norm: 'Normalize each channel of each example of [N, C, ...] over its positions.',
    layer_norm:
      'Normalize over the last dimensions, of shape `normalizedShape`, then scale by `weight` and add `bias`.',
    rms_norm:
      'Divide by the root mean square over the last dimensions, of shape `normalizedShape`, then scale by `weight`.',

    // Linear layers, dropout and embeddings
    alpha_dropout: 'Drop elements with probability `p` if `train`, keeping the mean and variance of SELU activations.',
    bilinear: 'Apply the bilinear map x1 · W · x2 with `weight` [out, in1, in2], plus `bias`.',
    dropout:
      'Zero elements with probability `p` and scale the others by 1 / (1 - `p`) if `train`, which is required here.',
    embedding: 'Look up the rows of `weight` [rows, dim] at `indices`: [..., dim]; the table comes first here.',
    embedding_bag:
      "Reduce the embeddings of each bag of `indices` by `mode`: 'sum' (the default here), 'mean' or 'max'.",
    linear: 'Apply a linear layer: the product with `weight` [out, in] transposed, plus `bias` [out].',
    one_hot: 'Encode integer classes as one-hot vectors: int64 [..., classes].',

    // Distances
    cosine_similarity: 'Compute the cosine of the angle between vectors along `dim`, which is 1 by default.',
    pairwise_distance: 'Compute the `p`-norm distance of corresponding vectors [..., d] of two tensors: [...].',
    pdist: 'Compute the `p`-norm distances of all pairs of the n rows of a matrix: [n * (n - 1) / 2].',

    // Losses. PyTorch's functions take `reduction` as a string, ATen's operators as a number.
    binary_cross_entropy:
      'Compute the binary cross-entropy of probabilities and targets; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    binary_cross_entropy_with_logits:
      'Compute the binary cross-entropy of logits and targets; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    cosine_embedding_loss:
      'Compute the cosine loss of pairs with target 1 (similar) or -1 (not); `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    cross_entropy:
      'Compute the cross-entropy of logits [N, C, ...] and classes [N, ...]; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    ctc_loss:
      'Compute the CTC loss of log-probabilities [T, N, C] and `targets`; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    hinge_embedding_loss:
      'Compute the hinge loss of distances with target 1 or -1; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    huber_loss:
      'Compute the Huber loss, quadratic up to `delta` and linear beyond; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    kl_div:
      'Compute the KL divergence of `target` from log-probabilities `self`; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    l1_loss: 'Compute the absolute error between `self` and `target`; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    margin_ranking_loss:
      'Compute the ranking loss of two scores with target 1 or -1; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    mse_loss: 'Compute the squared error between `self` and `target`; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    multi_margin_loss:
      'Compute the multi-class hinge loss of scores [N, C] and classes [N]; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    nll_loss:
      'Compute the negative log-likelihood of log-probabilities [N, C] and classes [N]; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    poisson_nll_loss:
      'Compute the negative log-likelihood of counts under Poisson distributions; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    smooth_l1_loss:
      'Compute the absolute error, made quadratic below `beta`; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    soft_margin_loss:
      'Compute the logistic loss of scores with targets 1 or -1; `reduction` is 0 (none), 1 (mean) or 2 (sum).',
    triplet_margin_loss:
      'Compute max(0, d(`anchor`, `positive`) - d(`anchor`, `negative`) + `margin`); `reduction` is 0 (none), 1 (mean) or 2 (sum).',

    // Images
    affine_grid: 'Return the sampling grid [N, H, W, 2] for `gridSampler` of the affine maps `theta` [N, 2, 3].',
    grid_sample:
      'Sample [N, C, H, W] at `grid` [N, H, W, 2] in [-1, 1]; `interpolationMode` is 0 (bilinear), 1 (nearest) or 2 (bicubic).',
    pad: 'Pad by `pad`: [before, after] of the last dimension first, then of the dimension before it, and so on.',
    pixel_shuffle: 'Rearrange [N, C * r², H, W] to [N, C, H * r, W * r], where r is `upscaleFactor`.',
    pixel_unshuffle: 'Rearrange [N, C, H * r, W * r] to [N, C * r², H, W], where r is `downscaleFactor`.',
    upsample_bilinear: 'Resize images [N, C, H, W] to `outputSize` by bilinear interpolation.',
    upsample_nearest: 'Resize images [N, C, H, W] to `outputSize` from the nearest pixel.',
  },

  'torch.linalg': {
    cholesky: 'Compute the Cholesky factor of each positive-definite matrix, lower unless `upper`.',
    cond: 'Compute the condition number of each matrix in the norm `p`, by default the 2-norm.',
    cross: 'Compute the cross product of vectors of 3 elements along `dim`, by default the last.',
    det: 'Compute determinants: [..., n, n] gives [...].',
    diagonal: 'Return a view of the diagonals of the last two dimensions of `A`.',
    eig: 'Compute `{ eigenvalues, eigenvectors }` of each square matrix, as complex tensors.',
    eigh: 'Compute `{ eigenvalues, eigenvectors }` of each symmetric or Hermitian matrix, in ascending order.',
    eigvals: 'Compute eigenvalues as a complex tensor, in no particular order: [..., n, n] gives [..., n].',
    eigvalsh: 'Compute the eigenvalues of each symmetric or Hermitian matrix, in ascending order.',
    inv: 'Compute the inverse of each square matrix; an error if one is singular.',
    lstsq: 'Solve least-squares problems: find X with the smallest norm of AX - `b`.',
    lu: 'Compute `{ P, L, U }` of each matrix: the product of the three is the matrix.',
    lu_factor: 'Compute the compact LU decomposition and pivots of each matrix, for `linalgLuSolve`.',
    lu_solve: 'Solve linear equations with right-hand sides `B`, from the result of `linalgLuFactor`.',
    matrix_exp: 'Compute matrix exponentials: [..., n, n] gives [..., n, n].',
    matrix_norm: 'Compute a matrix norm over two dimensions, by default the Frobenius norm of the last two.',
    matrix_power: 'Raise each square matrix to the integer power `n`; negative powers use the inverse.',
    matrix_rank: 'Compute the rank of each matrix: its number of singular values above a tolerance.',
    multi_dot: 'Compute the product of a chain of matrices in the order that needs the fewest operations.',
    norm: 'Compute a vector norm, or a matrix norm if `dim` has two dimensions; by default the 2-norm of all elements.',
    pinv: 'Compute the pseudoinverse of each matrix.',
    qr: "Compute `{ Q, R }` of the QR decomposition of each matrix, with `mode` 'reduced', 'complete' or 'r'.",
    slogdet: 'Compute `{ sign, logabsdet }`: the sign and the log of the absolute value of each determinant.',
    solve: 'Solve linear equations AX = `B` with square matrices `A`, or XA = `B` with `left` false.',
    solve_triangular: 'Solve linear equations AX = `B` with triangular matrices; `upper` is required.',
    svd: 'Compute `{ U, S, Vh }` of the singular value decomposition of each matrix, with V already transposed.',
    svdvals: 'Compute the singular values of each matrix, in descending order.',
    vecdot: 'Compute the dot products of vectors along `dim`, with the first ones conjugated.',
    vector_norm: 'Compute the norm of order `ord`, by default 2, of all elements or along `dim`.',
  },

  'torch.fft': {
    fft: 'Compute the discrete Fourier transform along `dim`, cropped or zero-padded to `n` samples first.',
    fft2: 'Compute the 2-D discrete Fourier transform of the last two dimensions, or of `dim`.',
    fftfreq: 'Return the frequencies of the bins of `fftFft` for `n` samples spaced `d`, in cycles per unit.',
    fftn: 'Compute the discrete Fourier transform of all dimensions, or of those in `dim`.',
    fftshift: 'Move the zero frequency to the center of each dimension, or of those in `dim`.',
    hfft: 'Compute the real transform of a signal with Hermitian symmetry, given by its half along `dim`.',
    ifft: 'Compute the inverse discrete Fourier transform along `dim`.',
    ifft2: 'Compute the inverse 2-D discrete Fourier transform of the last two dimensions, or of `dim`.',
    ifftn: 'Compute the inverse discrete Fourier transform of all dimensions, or of those in `dim`.',
    ifftshift: 'Undo `fftFftshift`: move the zero frequency back to the beginning.',
    ihfft: 'Compute the inverse of `fftHfft`: half of the Hermitian spectrum of a real signal.',
    irfft: 'Compute the inverse of `fftRfft`: a real signal of `n` samples, by default 2 * (bins - 1).',
    irfft2: 'Compute the inverse of `fftRfft2`: real images from half of their spectrum.',
    irfftn: 'Compute the inverse of `fftRfftn`: a real signal from half of its spectrum.',
    rfft: 'Compute the Fourier transform of a real signal along `dim`: the `n` / 2 + 1 non-negative frequencies.',
    rfft2: 'Compute the 2-D Fourier transform of real images, with the non-negative frequencies of the last dimension.',
    rfftfreq: 'Return the frequencies of the bins of `fftRfft` for `n` samples spaced `d`, in cycles per unit.',
    rfftn: 'Compute the Fourier transform of a real signal over several dimensions, half of the last one.',
  },
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
    const prefix = module === 'torch.linalg' ? 'linalg_' : module === 'torch.fft' ? 'fft_' : ''
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

/** Return the address of PyTorch's page of that name. */
export const pageAddress = (page: string): string => `https://docs.pytorch.org/docs/stable/generated/${page}.html`
