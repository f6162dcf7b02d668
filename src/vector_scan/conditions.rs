//! Conditions on the filter columns of an index, as a vector scan gives them to the search: what a WHERE clause demands of
//! these columns, with AND, OR and negations. Rows that match pass; of those that pass, some may not match, as each is checked against the
//! whole clause when it is read.

use super::plan::nodes;
use crate::index::filter::columns::Columns;
use crate::index::filter::predicate::{Predicate, ScanConditions as _, strategy};
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;

/// What is demanded.
#[derive(Clone, PartialEq, Debug)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Test(Test),
}

/// A test of one column.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Test {
    /// Column of the index; the vector is 1.
    column: i16,
    what: What,
    strategy: u16,
    /// Type of the operator's right operand.
    subtype: pg_sys::Oid,
    /// Place of the constant among those of the scan.
    argument: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
enum What {
    /// By an operator of the column's class.
    Compare,
    /// `operator ANY (array)`
    CompareAny,
    /// `<>`, where the class has `=`.
    Differs,
    /// `<> ALL (array)`
    DiffersFromAll,
    /// IS [NOT] DISTINCT FROM
    Distinct,
    NotDistinct,
    Null,
    NotNull,
}

const WHATS: [What; 8] = [
    What::Compare,
    What::CompareAny,
    What::Differs,
    What::DiffersFromAll,
    What::Distinct,
    What::NotDistinct,
    What::Null,
    What::NotNull,
];

/// Share of the lists without a match that their summaries do not exclude; and of those between two values.
const FALSE_MATCHES: f64 = 0.1;
const FALSE_MATCHES_BETWEEN: f64 = 0.25;

impl Condition {
    /// Of the lists without a match, the share that their summaries let pass; None where they do not tell.
    pub fn false_matches(&self) -> Option<f64> {
        match self {
            Condition::All(parts) => {
                let tests = parts.iter().filter_map(|part| match part {
                    Condition::Test(test) => Some(test),
                    _ => None,
                });
                let tests: Vec<&Test> = tests.collect();
                let has = |test: &Test, is: fn(u16) -> bool| {
                    tests.iter().any(|t| t.column == test.column && t.what == What::Compare && is(t.strategy))
                };
                let between = tests.iter().any(|test| has(test, is_above) && has(test, is_below));
                let least = parts.iter().filter_map(Condition::false_matches).min_by(f64::total_cmp)?;
                Some(if between { least.max(FALSE_MATCHES_BETWEEN) } else { least })
            }
            Condition::Any(parts) => {
                let all: Option<Vec<f64>> = parts.iter().map(Condition::false_matches).collect();
                Some(all?.iter().sum::<f64>().min(1.0))
            }
            Condition::Test(test) => match test.what {
                What::Compare | What::CompareAny => (test.strategy <= strategy::GREATER).then_some(FALSE_MATCHES),
                What::Null | What::NotDistinct => Some(FALSE_MATCHES),
                What::Differs | What::DiffersFromAll | What::Distinct | What::NotNull => None,
            },
        }
    }

    /// As integers, which PostgreSQL can copy and print.
    pub fn to_integers(&self, out: &mut Vec<i32>) {
        match self {
            Condition::All(parts) | Condition::Any(parts) => {
                out.extend([i32::from(matches!(self, Condition::Any(_))), parts.len() as i32]);
                parts.iter().for_each(|part| part.to_integers(out));
            }
            Condition::Test(t) => {
                let numbers =
                    [t.column.into(), t.what as i32, t.strategy.into(), t.subtype.to_u32() as i32, t.argument];
                out.push(2);
                out.extend(numbers);
            }
        }
    }

    /// Inverse of [`Condition::to_integers`].
    pub fn from_integers(from: &mut dyn Iterator<Item = i32>) -> Condition {
        let mut next = || from.next().expect("integers of a condition");
        match next() {
            2 => {
                let column = next() as i16;
                let what = WHATS[next() as usize & 7];
                let (strategy, subtype) = (next() as u16, pg_sys::Oid::from(next() as u32));
                Condition::Test(Test { column, what, strategy, subtype, argument: next() })
            }
            kind => {
                let n = next();
                let parts = (0..n).map(|_| Condition::from_integers(from)).collect();
                if kind == 1 { Condition::Any(parts) } else { Condition::All(parts) }
            }
        }
    }
}

fn is_above(strategy: u16) -> bool {
    matches!(strategy, strategy::GREATER | strategy::GREATER_EQUAL)
}

fn is_below(strategy: u16) -> bool {
    matches!(strategy, strategy::LESS | strategy::LESS_EQUAL)
}

/// Finds conditions in the clauses of a query.
pub struct Finder {
    root: *mut pg_sys::PlannerInfo,
    index: *mut pg_sys::IndexOptInfo,
    /// Constants of the tests.
    pub arguments: Vec<*mut pg_sys::Expr>,
}

impl Finder {
    pub fn new(root: *mut pg_sys::PlannerInfo, index: *mut pg_sys::IndexOptInfo) -> Finder {
        Finder { root, index, arguments: Vec::new() }
    }

    /// What an expression demands of the filter columns, and whether that is all that it demands. None: nothing.
    ///
    /// # Safety
    /// An expression of the planner over the index's table; nodes are what their tags say.
    pub unsafe fn find(&mut self, expression: *mut pg_sys::Expr) -> Option<(Condition, bool)> {
        // SAFETY: by contract.
        unsafe {
            pg_sys::check_stack_depth();
            match (*expression).type_ {
                pg_sys::NodeTag::T_BoolExpr => self.find_in_bool(expression.cast()),
                pg_sys::NodeTag::T_OpExpr => self.find_in_op(expression.cast()),
                pg_sys::NodeTag::T_DistinctExpr => self.distinct(expression.cast(), What::Distinct),
                pg_sys::NodeTag::T_ScalarArrayOpExpr => self.find_in_array_op(expression.cast()),
                pg_sys::NodeTag::T_NullTest => {
                    let test = &*expression.cast::<pg_sys::NullTest>();
                    if test.argisrow {
                        return None;
                    }
                    let is_null = test.nulltesttype == pg_sys::NullTestType::IS_NULL;
                    if pg_sys::match_index_to_operand(test.arg.cast(), 0, self.index) {
                        return (!is_null).then(|| (Condition::All(Vec::new()), true));
                    }
                    let column = self.columns_of(test.arg).next()?;
                    let what = if is_null { What::Null } else { What::NotNull };
                    Some((self.test(column, what, 0, pg_sys::InvalidOid, None), true))
                }
                pg_sys::NodeTag::T_BooleanTest => {
                    let test = &*expression.cast::<pg_sys::BooleanTest>();
                    use pg_sys::BoolTestType::*;
                    match test.booltesttype {
                        IS_TRUE => self.boolean(test.arg, true, false),
                        IS_FALSE => self.boolean(test.arg, false, false),
                        IS_NOT_TRUE => self.boolean(test.arg, false, true),
                        IS_NOT_FALSE => self.boolean(test.arg, true, true),
                        _ => {
                            let column = self.columns_of(test.arg).next()?;
                            let unknown = test.booltesttype == IS_UNKNOWN;
                            let what = if unknown { What::Null } else { What::NotNull };
                            Some((self.test(column, what, 0, pg_sys::InvalidOid, None), true))
                        }
                    }
                }
                _ => self.boolean(expression, true, false),
            }
        }
    }

    /// Filter columns (from 1 on) of the index that an expression is.
    unsafe fn columns_of(&self, expression: *mut pg_sys::Expr) -> impl Iterator<Item = i32> + use<> {
        let index = self.index;
        // SAFETY: as for `find`.
        (1..unsafe { (*index).nkeycolumns })
            .filter(move |&column| unsafe { pg_sys::match_index_to_operand(expression.cast(), column, index) })
    }

    fn test(
        &mut self,
        column: i32,
        what: What,
        strategy: u16,
        subtype: pg_sys::Oid,
        argument: Option<*mut pg_sys::Expr>,
    ) -> Condition {
        let place = argument.map_or(-1, |argument| {
            self.arguments.push(argument);
            self.arguments.len() as i32 - 1
        });
        Condition::Test(Test { column: column as i16 + 1, what, strategy, subtype, argument: place })
    }

    /// A boolean column that is `value`, or NULL.
    unsafe fn boolean(
        &mut self,
        expression: *mut pg_sys::Expr,
        value: bool,
        or_null: bool,
    ) -> Option<(Condition, bool)> {
        // SAFETY: as for `find`.
        unsafe {
            let equal = pg_sys::Oid::from(pg_sys::BooleanEqualOperator);
            let index = &*self.index;
            let column = self
                .columns_of(expression)
                .find(|&column| pg_sys::op_in_opfamily(equal, *index.opfamily.add(column as usize)))?;
            let constant = pg_sys::makeBoolConst(value, false).cast();
            let is = self.test(column, What::Compare, strategy::EQUAL, pg_sys::BOOLOID, Some(constant));
            if !or_null {
                return Some((is, true));
            }
            let null = self.test(column, What::Null, 0, pg_sys::InvalidOid, None);
            Some((Condition::Any(vec![is, null]), true))
        }
    }

    unsafe fn find_in_bool(&mut self, expression: *mut pg_sys::BoolExpr) -> Option<(Condition, bool)> {
        // SAFETY: as for `find`.
        unsafe {
            let parts: Vec<*mut pg_sys::Expr> = nodes((*expression).args);
            match (*expression).boolop {
                pg_sys::BoolExprType::AND_EXPR => {
                    let n = parts.len();
                    let found: Vec<(Condition, bool)> = parts.into_iter().filter_map(|part| self.find(part)).collect();
                    let whole = found.len() == n && found.iter().all(|(_, whole)| *whole);
                    (!found.is_empty())
                        .then(|| (Condition::All(found.into_iter().map(|(condition, _)| condition).collect()), whole))
                }
                pg_sys::BoolExprType::OR_EXPR => {
                    let before = self.arguments.len();
                    let found: Option<Vec<(Condition, bool)>> = parts.into_iter().map(|part| self.find(part)).collect();
                    let Some(found) = found else {
                        self.arguments.truncate(before);
                        return None;
                    };
                    let whole = found.iter().all(|(_, whole)| *whole);
                    Some((Condition::Any(found.into_iter().map(|(condition, _)| condition).collect()), whole))
                }
                _ => {
                    let inner = *parts.first()?;
                    if (*inner).type_ == pg_sys::NodeTag::T_DistinctExpr {
                        return self.distinct(inner.cast(), What::NotDistinct);
                    }
                    self.boolean(inner, false, false)
                }
            }
        }
    }

    /// The column and the constant of a comparison, and whether the constant stands on the left.
    unsafe fn sides(&self, arguments: *mut pg_sys::List) -> Option<(*mut pg_sys::Expr, *mut pg_sys::Expr, bool)> {
        // SAFETY: as for `find`.
        unsafe {
            let sides: Vec<*mut pg_sys::Expr> = nodes(arguments);
            let &[left, right] = &sides[..] else { return None };
            if self.is_constant(right) {
                Some((left, right, false))
            } else if self.is_constant(left) {
                Some((right, left, true))
            } else {
                None
            }
        }
    }

    unsafe fn is_constant(&self, expression: *mut pg_sys::Expr) -> bool {
        // SAFETY: as for `find`.
        unsafe {
            pg_sys::pull_varnos(self.root, expression.cast()).is_null()
                && !pg_sys::contain_volatile_functions(expression.cast())
        }
    }

    /// The strategy of an operator in a column's class and its right type, under the collation of the condition.
    unsafe fn strategy(
        &self,
        column: i32,
        operator: pg_sys::Oid,
        collation: pg_sys::Oid,
    ) -> Option<(u16, pg_sys::Oid)> {
        // SAFETY: as for `find`; the arrays have an element for each key column.
        unsafe {
            let index = &*self.index;
            let family = *index.opfamily.add(column as usize);
            let own = *index.indexcollations.add(column as usize);
            if operator == pg_sys::InvalidOid
                || own != pg_sys::InvalidOid && own != collation
                || !pg_sys::op_in_opfamily(operator, family)
            {
                return None;
            }
            let (mut strategy, mut left, mut right) = (0, pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::get_op_opfamily_properties(operator, family, false, &mut strategy, &mut left, &mut right);
            Some((strategy as u16, right))
        }
    }

    unsafe fn find_in_op(&mut self, op: *mut pg_sys::OpExpr) -> Option<(Condition, bool)> {
        // SAFETY: as for `find`.
        unsafe {
            let (operand, constant, turned) = self.sides((*op).args)?;
            let operator = if turned { pg_sys::get_commutator((*op).opno) } else { (*op).opno };
            if operator == pg_sys::InvalidOid {
                return None;
            }
            let collation = (*op).inputcollid;
            let columns: Vec<i32> = self.columns_of(operand).collect();
            for &column in &columns {
                if let Some((strategy, right)) = self.strategy(column, operator, collation) {
                    return Some((self.test(column, What::Compare, strategy, right, Some(constant)), true));
                }
            }
            if pg_sys::get_opcode(operator).to_u32() == pg_sys::F_JSONB_CONTAINS {
                return self.find_in_json(operand, constant);
            }
            let negator = pg_sys::get_negator(operator);
            for column in columns {
                if let Some((strategy::EQUAL, right)) = self.strategy(column, negator, collation) {
                    return Some((self.test(column, What::Differs, strategy::EQUAL, right, Some(constant)), true));
                }
            }
            None
        }
    }

    /// `operand @> '{"key": "value", …}'` demands that `operand ->> 'key'` is that value, where this is a filter column: of strings and
    /// booleans, whose texts are the same whenever they are.
    unsafe fn find_in_json(
        &mut self,
        operand: *mut pg_sys::Expr,
        constant: *mut pg_sys::Expr,
    ) -> Option<(Condition, bool)> {
        // SAFETY: as for `find`; a Const is of the type of the operator's right operand, jsonb.
        unsafe {
            if (*constant).type_ != pg_sys::NodeTag::T_Const || (*constant.cast::<pg_sys::Const>()).constisnull {
                return None;
            }
            let json = (*constant.cast::<pg_sys::Const>()).constvalue;
            let index = &*self.index;
            let mut expressions = nodes::<pg_sys::Expr>(index.indexprs).into_iter();
            let mut found = Vec::new();
            for column in 0..index.nkeycolumns {
                if *index.indexkeys.add(column as usize) != 0 {
                    continue;
                }
                let expression = expressions.next()?;
                if column == 0 || (*expression).type_ != pg_sys::NodeTag::T_OpExpr {
                    continue;
                }
                let field = &*expression.cast::<pg_sys::OpExpr>();
                let sides: Vec<*mut pg_sys::Expr> = nodes(field.args);
                let &[of, key] = &sides[..] else { continue };
                let is_field = pg_sys::get_opcode(field.opno).to_u32() == pg_sys::F_JSONB_OBJECT_FIELD_TEXT
                    && (*key).type_ == pg_sys::NodeTag::T_Const
                    && !(*key.cast::<pg_sys::Const>()).constisnull
                    && pg_sys::equal(of.cast(), operand.cast());
                let equal = pg_sys::Oid::from(pg_sys::TextEqualOperator);
                let collation = *index.indexcollations.add(column as usize);
                let Some((strategy::EQUAL, right)) =
                    is_field.then(|| self.strategy(column, equal, collation)).flatten()
                else {
                    continue;
                };
                let arguments = [Some(json), Some((*key.cast::<pg_sys::Const>()).constvalue)];
                let Some(value) = pgrx::direct_function_call_as_datum(pg_sys::jsonb_object_field, &arguments) else {
                    continue;
                };
                let kind = pgrx::direct_function_call::<String>(pg_sys::jsonb_typeof, &[Some(value)]);
                if !matches!(kind.as_deref(), Some("string" | "boolean")) {
                    continue;
                }
                let text = pgrx::direct_function_call_as_datum(pg_sys::jsonb_object_field_text, &arguments)?;
                let text = pg_sys::makeConst(pg_sys::TEXTOID, -1, collation, -1, text, false, false);
                found.push(self.test(column, What::Compare, strategy::EQUAL, right, Some(text.cast())));
            }
            (!found.is_empty()).then_some((Condition::All(found), false))
        }
    }

    unsafe fn distinct(&mut self, expression: *mut pg_sys::OpExpr, what: What) -> Option<(Condition, bool)> {
        // SAFETY: as for `find`; a DistinctExpr is laid out as an OpExpr.
        unsafe {
            let (operand, constant, turned) = self.sides((*expression).args)?;
            let operator = if turned { pg_sys::get_commutator((*expression).opno) } else { (*expression).opno };
            let columns: Vec<i32> = self.columns_of(operand).collect();
            for column in columns {
                if let Some((strategy::EQUAL, right)) = self.strategy(column, operator, (*expression).inputcollid) {
                    return Some((self.test(column, what, strategy::EQUAL, right, Some(constant)), true));
                }
            }
            None
        }
    }

    unsafe fn find_in_array_op(&mut self, op: *mut pg_sys::ScalarArrayOpExpr) -> Option<(Condition, bool)> {
        // SAFETY: as for `find`.
        unsafe {
            let sides: Vec<*mut pg_sys::Expr> = nodes((*op).args);
            let &[operand, array] = &sides[..] else { return None };
            if !self.is_constant(array) {
                return None;
            }
            let columns: Vec<i32> = self.columns_of(operand).collect();
            for column in columns {
                let (operator, what) = match (*op).useOr {
                    true => ((*op).opno, What::CompareAny),
                    false => (pg_sys::get_negator((*op).opno), What::DiffersFromAll),
                };
                let Some((strategy, right)) = self.strategy(column, operator, (*op).inputcollid) else { continue };
                if what == What::CompareAny || strategy == strategy::EQUAL {
                    return Some((self.test(column, what, strategy, right, Some(array)), true));
                }
            }
            None
        }
    }
}

/// Conditions of a running scan.
pub struct Conditions {
    condition: Condition,
    columns: Columns,
    arguments: Vec<*mut pg_sys::ExprState>,
    /// Where the values of the constants live.
    context: *mut pg_sys::ExprContext,
}

impl Conditions {
    /// Makes them ready to be evaluated.
    ///
    /// # Safety
    /// The node has begun; expressions and columns are those of the condition.
    pub unsafe fn new(
        parent: *mut pg_sys::PlanState,
        columns: Columns,
        condition: Condition,
        arguments: &[*mut pg_sys::Expr],
    ) -> Conditions {
        // SAFETY: by contract.
        unsafe {
            let arguments = arguments.iter().map(|&argument| pg_sys::ExecInitExpr(argument, parent)).collect();
            Conditions { condition, columns, arguments, context: pg_sys::CreateExprContext((*parent).state) }
        }
    }

    /// The predicate, with the values that constants have now.
    ///
    /// # Safety
    /// The node is running.
    pub unsafe fn evaluate(&self) -> Predicate {
        // SAFETY: made by `new`.
        unsafe {
            let memory = (*self.context).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(memory);
            let value = |&argument: &*mut pg_sys::ExprState| {
                let mut null = false;
                let value = pg_sys::ExecEvalExprSwitchContext(argument, self.context, &mut null);
                (!null).then_some(value)
            };
            let values: Vec<Option<pg_sys::Datum>> = self.arguments.iter().map(value).collect();
            PgMemoryContexts::For(memory).switch_to(|_| self.predicate(&self.condition, &values))
        }
    }

    unsafe fn predicate(&self, condition: &Condition, values: &[Option<pg_sys::Datum>]) -> Predicate {
        let mut all = Predicate::default();
        // SAFETY: as for `evaluate`.
        unsafe {
            match condition {
                Condition::All(parts) => parts.iter().for_each(|part| all.and(self.predicate(part, values))),
                Condition::Any(parts) => all.and_any(parts.iter().map(|part| self.predicate(part, values)).collect()),
                Condition::Test(test) => return self.of_test(test, values),
            }
        }
        all
    }

    unsafe fn of_test(&self, test: &Test, values: &[Option<pg_sys::Datum>]) -> Predicate {
        let value = values.get(test.argument as usize).copied().flatten();
        let key = |flags: u32| pg_sys::ScanKeyData {
            sk_flags: (flags | if value.is_none() { pg_sys::SK_ISNULL } else { 0 }) as i32,
            sk_attno: test.column,
            sk_strategy: test.strategy,
            sk_subtype: test.subtype,
            sk_argument: value.unwrap_or(pg_sys::Datum::null()),
            ..Default::default()
        };
        // SAFETY: keys of the index's columns, with values of the operators' types.
        unsafe {
            let of = |key: pg_sys::ScanKeyData| Predicate::from_keys(&self.columns, &[key]);
            let null = || of(key(pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL));
            let not_null = || of(key(pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNOTNULL));
            match test.what {
                What::Compare => of(key(0)),
                What::CompareAny => of(key(pg_sys::SK_SEARCHARRAY)),
                What::Null => null(),
                What::NotNull => not_null(),
                What::NotDistinct if value.is_none() => null(),
                What::NotDistinct => of(key(0)),
                What::Distinct if value.is_none() => not_null(),
                What::Distinct => {
                    let mut any = Predicate::default();
                    any.and_any(vec![null(), Predicate::differing(&self.columns, &key(0))]);
                    any
                }
                What::Differs => Predicate::differing(&self.columns, &key(0)),
                What::DiffersFromAll => Predicate::differing(&self.columns, &key(pg_sys::SK_SEARCHARRAY)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(what: What, strategy: u16) -> Condition {
        Condition::Test(Test { column: 2, what, strategy, subtype: pg_sys::INT4OID, argument: 3 })
    }

    #[test]
    fn integers() {
        let condition = Condition::All(vec![
            Condition::Any(vec![test(What::Compare, 3), test(What::Null, 0)]),
            test(What::DiffersFromAll, 3),
        ]);
        let mut integers = Vec::new();
        condition.to_integers(&mut integers);
        assert_eq!(Condition::from_integers(&mut integers.into_iter()), condition);
    }

    #[test]
    fn what_summaries_tell() {
        let (equal, above, below) = (test(What::Compare, 3), test(What::Compare, 5), test(What::Compare, 1));
        assert_eq!(equal.false_matches(), Some(0.1));
        assert_eq!(Condition::All(vec![above, below]).false_matches(), Some(0.25));
        assert_eq!(Condition::Any(vec![equal.clone(), test(What::Differs, 3)]).false_matches(), None);
        assert_eq!(Condition::Any(vec![equal.clone(), equal]).false_matches(), Some(0.2));
    }
}
