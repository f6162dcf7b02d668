//! Values that follow from a distance: `1 - (v <=> q)`, `-(v <#> q)`, `round((v <-> q)::numeric, 3)` and the like. What
//! rises or falls with the distance is in order when rows come by distance, and a bound of it is one of the distance.

use super::plan::nodes;
use pgrx::prelude::*;

/// PostgreSQL's btree families of these types.
pub const FLOAT_OPS: pg_sys::Oid = pg_sys::Oid::from_u32(1970);
const NUMERIC_OPS: pg_sys::Oid = pg_sys::Oid::from_u32(1988);

/// What is done with a value, as PostgreSQL's functions of float8 do it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    /// `x + c`
    Plus(f64),
    /// `c - x`
    From(f64),
    /// `x * c`
    Times(f64),
    /// `x / c`
    By(f64),
    /// `c / x`, both above 0
    Over(f64),
    /// `x ^ 2`, of what is not below 0
    Square,
    /// `x * x`
    Product,
    Root,
    /// By a function that keeps the order, or turns it round, and that is not done here.
    Unknown {
        turns: bool,
    },
}

/// How a value follows from a distance.
#[derive(Clone, PartialEq, Debug)]
pub struct Form {
    steps: Vec<Step>,
    /// It falls where the distance rises.
    pub falling: bool,
    /// Distances are not below 0.
    positive: bool,
    /// The value is not below this.
    least: Option<f64>,
}

impl Form {
    /// The distance itself. `positive`: it is never below 0.
    pub fn of_distance(positive: bool) -> Form {
        Form { steps: Vec::new(), falling: false, positive, least: positive.then_some(0.0) }
    }

    /// Its negative.
    pub fn negated(self) -> Form {
        self.then(Step::Times(-1.0)).expect("it can be negated")
    }

    /// The form of an expression, where `distance` tells that of a distance in it.
    ///
    /// # Safety
    /// An expression of the planner.
    pub unsafe fn of<D>(
        expression: *mut pg_sys::Expr,
        distance: &impl Fn(*mut pg_sys::Expr) -> Option<(D, Form)>,
    ) -> Option<(D, Form)> {
        if let Some(found) = distance(expression) {
            return Some(found);
        }
        // SAFETY: by contract.
        unsafe {
            pg_sys::check_stack_depth();
            let (inner, step) = split(expression)?;
            let (found, form) = Form::of(inner, distance)?;
            Some((found, form.then(step)?))
        }
    }

    /// With one more step; None if it may change the direction on the way.
    fn then(mut self, step: Step) -> Option<Form> {
        let least = self.least;
        let (turns, least) = match step {
            Step::Plus(c) => (false, least.map(|x| x + c)),
            Step::From(_) => (true, None),
            Step::Times(c) if c > 0.0 => (false, least.map(|x| x * c)),
            Step::By(c) if c > 0.0 => (false, least.map(|x| x / c)),
            Step::Times(_) | Step::By(_) => (true, None),
            Step::Over(_) if least.is_some_and(|x| x > 0.0) => (true, Some(0.0)),
            Step::Square | Step::Product | Step::Root if least.is_some_and(|x| x >= 0.0) => (false, Some(0.0)),
            Step::Unknown { turns } => (turns, None),
            _ => return None,
        };
        self.steps.push(step);
        self.falling ^= turns;
        self.least = least;
        Some(self)
    }

    /// Whether it is the distance itself.
    pub fn is_plain(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether distances are never below 0.
    pub fn is_positive(&self) -> bool {
        self.positive
    }

    /// Whether [`Form::farthest`] can be asked.
    pub fn is_computed(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, Step::Unknown { .. }))
    }

    /// The value for a distance.
    fn value(&self, distance: f64) -> f64 {
        self.steps.iter().fold(distance, |x, step| match *step {
            Step::Plus(c) => x + c,
            Step::From(c) => c - x,
            Step::Times(c) => x * c,
            Step::By(c) => x / c,
            Step::Over(c) => c / x,
            Step::Square => x.powf(2.0),
            Step::Product => x * x,
            Step::Root => x.sqrt(),
            Step::Unknown { .. } => f64::NAN,
        })
    }

    /// The largest distance whose value `passes`, as all smaller ones' do: with PostgreSQL's own arithmetic, so that rounding decides
    /// neither for nor against a row. Infinite where all pass, negative infinity where none does.
    pub fn farthest(&self, passes: impl Fn(f64) -> bool) -> f64 {
        let at = |key: i64| f64::from_bits((if key < 0 { key ^ i64::MAX } else { key }) as u64);
        let key = |x: f64| match x.to_bits() as i64 {
            bits if bits < 0 => bits ^ i64::MAX,
            bits => bits,
        };
        let passes = |key: i64| passes(self.value(at(key)));
        let (mut yes, mut no) = (key(if self.positive { 0.0 } else { f64::NEG_INFINITY }), key(f64::INFINITY));
        if passes(no) {
            return f64::INFINITY;
        }
        if !passes(yes) {
            return f64::NEG_INFINITY;
        }
        while no - 1 > yes {
            let middle = ((i128::from(yes) + i128::from(no)) >> 1) as i64;
            *(if passes(middle) { &mut yes } else { &mut no }) = middle;
        }
        at(yes)
    }

    /// As integers, which PostgreSQL can copy and print.
    pub fn to_integers(&self, out: &mut Vec<i32>) {
        out.extend([i32::from(self.falling), i32::from(self.positive), self.steps.len() as i32]);
        for step in &self.steps {
            let (code, c) = match *step {
                Step::Plus(c) => (0, c),
                Step::From(c) => (1, c),
                Step::Times(c) => (2, c),
                Step::By(c) => (3, c),
                Step::Over(c) => (4, c),
                Step::Square => (5, 0.0),
                Step::Product => (6, 0.0),
                Step::Root => (7, 0.0),
                Step::Unknown { turns } => (8 + i32::from(turns), 0.0),
            };
            let bits = c.to_bits();
            out.extend([code, (bits >> 32) as i32, bits as i32]);
        }
    }

    /// Inverse of [`Form::to_integers`].
    pub fn from_integers(from: &mut impl Iterator<Item = i32>) -> Form {
        let mut next = || from.next().expect("integers of a form");
        let (falling, positive) = (next() != 0, next() != 0);
        let steps = (0..next())
            .map(|_| {
                let (code, high, low) = (next(), next(), next());
                let c = f64::from_bits(u64::from(high as u32) << 32 | u64::from(low as u32));
                match code {
                    0 => Step::Plus(c),
                    1 => Step::From(c),
                    2 => Step::Times(c),
                    3 => Step::By(c),
                    4 => Step::Over(c),
                    5 => Step::Square,
                    6 => Step::Product,
                    7 => Step::Root,
                    code => Step::Unknown { turns: code == 9 },
                }
            })
            .collect();
        Form { steps, falling, positive, least: None }
    }
}

/// A comparison of a value with a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    Below,
    BelowOrEqual,
    AboveOrEqual,
    Above,
}

impl Comparison {
    /// Of btree's strategy. `turned`: the constant stands on the left.
    pub fn of_strategy(strategy: i32, turned: bool) -> Option<Comparison> {
        use Comparison::*;
        let all = [Below, BelowOrEqual, AboveOrEqual, Above];
        let at = match strategy as u32 {
            pg_sys::BTLessStrategyNumber => 0,
            pg_sys::BTLessEqualStrategyNumber => 1,
            pg_sys::BTGreaterEqualStrategyNumber => 2,
            pg_sys::BTGreaterStrategyNumber => 3,
            _ => return None,
        };
        Some(all[if turned { 3 - at } else { at }])
    }

    /// Inverse of the cast to a number.
    fn from_number(number: i32) -> Comparison {
        use Comparison::*;
        [Below, BelowOrEqual, AboveOrEqual, Above][number as usize & 3]
    }

    /// The constant is a bound from above.
    pub fn is_below(self) -> bool {
        matches!(self, Comparison::Below | Comparison::BelowOrEqual)
    }

    /// The largest distance, of those that are numbers, at which a value of that form is on the right side of `bound`.
    pub fn reach(self, form: &Form, bound: f64) -> f64 {
        if bound.is_nan() {
            // It is greater than all numbers.
            return if self.is_below() { f64::INFINITY } else { f64::NEG_INFINITY };
        }
        match self {
            Comparison::Below | Comparison::BelowOrEqual if form.is_plain() => bound,
            Comparison::Below => form.farthest(|value| value < bound),
            Comparison::BelowOrEqual => form.farthest(|value| value <= bound),
            Comparison::AboveOrEqual => form.farthest(|value| value >= bound),
            Comparison::Above => form.farthest(|value| value > bound),
        }
    }

    /// Whether a value that is not a number is on the right side of `bound`: PostgreSQL has it greater than all numbers.
    pub fn lets_nan_pass(self, bound: f64) -> bool {
        match self {
            Comparison::Below => false,
            Comparison::BelowOrEqual => bound.is_nan(),
            Comparison::AboveOrEqual => true,
            Comparison::Above => !bound.is_nan(),
        }
    }

    /// Comparisons and forms from what they were written as.
    pub fn read(integers: &[i32]) -> Vec<(Comparison, Form)> {
        let mut integers = integers.iter().copied().peekable();
        let mut all = Vec::new();
        while let Some(number) = integers.next() {
            all.push((Comparison::from_number(number), Form::from_integers(&mut integers)));
        }
        all
    }
}

/// Whether values of a type are ordered by a family as [`Form`] has it.
pub fn is_order(family: pg_sys::Oid) -> bool {
    family == FLOAT_OPS || family == NUMERIC_OPS
}

/// The last step of an expression, and what it is done with.
///
/// # Safety
/// An expression of the planner.
unsafe fn split(expression: *mut pg_sys::Expr) -> Option<(*mut pg_sys::Expr, Step)> {
    const ROUNDED: Step = Step::Unknown { turns: false };
    // SAFETY: by contract; nodes are what their tags say.
    unsafe {
        let (function, arguments): (pg_sys::Oid, Vec<*mut pg_sys::Expr>) = match (*expression).type_ {
            pg_sys::NodeTag::T_OpExpr => {
                let op = &*expression.cast::<pg_sys::OpExpr>();
                (pg_sys::get_opcode(op.opno), nodes(op.args))
            }
            pg_sys::NodeTag::T_FuncExpr => {
                let call = &*expression.cast::<pg_sys::FuncExpr>();
                (call.funcid, nodes(call.args))
            }
            _ => return None,
        };
        let function = function.to_u32();
        match arguments[..] {
            [x] => match function {
                pg_sys::F_FLOAT8UM => Some((x, Step::Times(-1.0))),
                pg_sys::F_NUMERIC_UMINUS => Some((x, Step::Unknown { turns: true })),
                pg_sys::F_DSQRT | pg_sys::F_SQRT_FLOAT8 => Some((x, Step::Root)),
                pg_sys::F_FLOAT8UP
                | pg_sys::F_FLOAT8_NUMERIC
                | pg_sys::F_NUMERIC_FLOAT8
                | pg_sys::F_FLOAT4_FLOAT8
                | pg_sys::F_FLOAT8_FLOAT4
                | pg_sys::F_FLOAT4_NUMERIC
                | pg_sys::F_ROUND_NUMERIC
                | pg_sys::F_ROUND_FLOAT8 => Some((x, ROUNDED)),
                _ => None,
            },
            [x, y] if function == pg_sys::F_FLOAT8MUL && pg_sys::equal(x.cast(), y.cast()) => Some((x, Step::Product)),
            [x, y] => match (function, number(x), number(y)) {
                (pg_sys::F_ROUND_NUMERIC_INT4 | pg_sys::F_TRUNC_NUMERIC_INT4, None, _) if is_integer(y) => {
                    Some((x, ROUNDED))
                }
                (pg_sys::F_FLOAT8PL, None, Some(c)) => Some((x, Step::Plus(c))),
                (pg_sys::F_FLOAT8PL, Some(c), None) => Some((y, Step::Plus(c))),
                (pg_sys::F_FLOAT8MI, None, Some(c)) => Some((x, Step::Plus(-c))),
                (pg_sys::F_FLOAT8MI, Some(c), None) => Some((y, Step::From(c))),
                (pg_sys::F_FLOAT8MUL, None, Some(c)) if c != 0.0 => Some((x, Step::Times(c))),
                (pg_sys::F_FLOAT8MUL, Some(c), None) if c != 0.0 => Some((y, Step::Times(c))),
                (pg_sys::F_FLOAT8DIV, None, Some(c)) if c != 0.0 => Some((x, Step::By(c))),
                (pg_sys::F_FLOAT8DIV, Some(c), None) if c > 0.0 => Some((y, Step::Over(c))),
                (pg_sys::F_DPOW | pg_sys::F_POW_FLOAT8_FLOAT8 | pg_sys::F_POWER_FLOAT8_FLOAT8, None, Some(2.0)) => {
                    Some((x, Step::Square))
                }
                (pg_sys::F_NUMERIC_ADD | pg_sys::F_NUMERIC_SUB, None, Some(_)) => Some((x, ROUNDED)),
                (pg_sys::F_NUMERIC_ADD, Some(_), None) => Some((y, ROUNDED)),
                (pg_sys::F_NUMERIC_SUB, Some(_), None) => Some((y, Step::Unknown { turns: true })),
                (pg_sys::F_NUMERIC_MUL, None, Some(c)) if c != 0.0 => Some((x, Step::Unknown { turns: c < 0.0 })),
                (pg_sys::F_NUMERIC_MUL, Some(c), None) if c != 0.0 => Some((y, Step::Unknown { turns: c < 0.0 })),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The value of a constant of a type of floating-point numbers, or numeric (about), that is finite.
///
/// # Safety
/// An expression of the planner.
unsafe fn number(expression: *mut pg_sys::Expr) -> Option<f64> {
    // SAFETY: by contract; a constant is of the type that it says.
    unsafe {
        if (*expression).type_ != pg_sys::NodeTag::T_Const {
            return None;
        }
        let value = &*expression.cast::<pg_sys::Const>();
        if value.constisnull {
            return None;
        }
        let number = match value.consttype {
            pg_sys::FLOAT8OID => f64::from_bits(value.constvalue.value() as u64),
            pg_sys::NUMERICOID => {
                let float =
                    pgrx::direct_function_call_as_datum(pg_sys::numeric_float8_no_overflow, &[Some(value.constvalue)]);
                f64::from_bits(float?.value() as u64)
            }
            _ => return None,
        };
        number.is_finite().then_some(number)
    }
}

/// Whether an expression is a constant integer.
///
/// # Safety
/// An expression of the planner.
unsafe fn is_integer(expression: *mut pg_sys::Expr) -> bool {
    // SAFETY: by contract.
    unsafe {
        (*expression).type_ == pg_sys::NodeTag::T_Const && {
            let value = &*expression.cast::<pg_sys::Const>();
            value.consttype == pg_sys::INT4OID && !value.constisnull
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(steps: &[Step]) -> Option<Form> {
        steps.iter().try_fold(Form::of_distance(true), |form, step| form.then(*step))
    }

    #[test]
    fn direction() {
        assert!(!form(&[]).unwrap().falling);
        assert!(form(&[Step::From(1.0)]).unwrap().falling);
        assert!(!form(&[Step::From(1.0), Step::Times(-2.0)]).unwrap().falling);
        assert!(form(&[Step::Plus(1.0), Step::Over(1.0)]).unwrap().falling);
        assert_eq!(form(&[Step::Over(1.0)]), None, "1 / 0");
        assert_eq!(form(&[Step::From(1.0), Step::Square]), None);
        assert!(Form::of_distance(false).then(Step::Square).is_none());
        assert!(!Form::of_distance(false).negated().is_plain());
    }

    #[test]
    fn farthest_is_where_the_value_passes_last() {
        let similarity = form(&[Step::From(1.0)]).unwrap();
        for least in [0.98, 0.3, 0.1 + 0.2, -1.0, 1.0, 1e-300] {
            let d = similarity.farthest(|value| value > least);
            if least >= 1.0 {
                assert_eq!(d, f64::NEG_INFINITY);
                continue;
            }
            assert!(1.0 - d > least && 1.0 - d.next_up() <= least, "{least} {d}");
        }
        let d = form(&[Step::Plus(1.0), Step::Over(1.0)]).unwrap().farthest(|value| value >= 0.2);
        assert!((d - 4.0).abs() < 1e-12);
        let d = form(&[Step::Square]).unwrap().farthest(|value| value < 9.0);
        assert!(d < 3.0 && d.next_up() >= 3.0);
        assert_eq!(form(&[Step::From(1.0)]).unwrap().farthest(|value| value > f64::NEG_INFINITY), f64::MAX);
        assert_eq!(Form::of_distance(false).farthest(|value| value <= -5.0), -5.0);
    }

    #[test]
    fn integers() {
        let form = form(&[Step::Plus(1.5), Step::Over(-0.0 + 2.0), Step::Unknown { turns: true }]).unwrap();
        let mut integers = Vec::new();
        form.to_integers(&mut integers);
        let read = Form::from_integers(&mut integers.into_iter());
        assert_eq!((read.steps, read.falling, read.positive), (form.steps, form.falling, form.positive));
    }
}
